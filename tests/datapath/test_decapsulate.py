"""The outer header comes off; nothing else changes."""

import pytest

from lbmux.datapath.verdicts import Verdict

from .craft import ETHERNET, Craft, tunnelled
from .harness import Frames, Machine
from .plain_agent import LOCAL, Endpoint
from .plain_packet import TCP

HOST, MUX = bytes([10, 1, 1, 2]), bytes([10, 0, 1, 2])
INNER = Craft(payload=bytes(range(50)))


def through(frame: bytes) -> tuple[Verdict, int, bytes]:
    machine = Machine.make(16)
    machine.install_agent([HOST], [MUX], [Endpoint(INNER.destination, 80, HOST, 80, TCP, owner=0, mode=LOCAL)])
    batch = Frames([frame])
    machine.worker.inbound(batch, 1)
    assert batch.untouched_around()
    return batch.results()[0]


@pytest.mark.parametrize("padding", [b"", bytes(30)], ids=["bare", "padded"])
def test_what_is_left_is_the_inner_packet_behind_the_same_ethernet_header(padding: bytes) -> None:
    frame = tunnelled(INNER.packet(), MUX, HOST) + padding
    assert through(frame) == (Verdict.DELIVERED, 0, ETHERNET + b"\x08\x00" + INNER.packet() + padding)


@pytest.mark.parametrize(
    "fields", [{"ttl": 1}, {"tos": 0xFF}, {"identification": 9}, {"fragment": 0}], ids=lambda fields: next(iter(fields))
)
def test_the_outer_header_s_fields_leave_no_trace(fields: dict[str, int]) -> None:
    assert through(tunnelled(INNER.packet(), MUX, HOST, **fields))[2][14:] == INNER.packet()


OUTER = tunnelled(INNER.packet(), MUX, HOST)
BAD: dict[str, tuple[bytes, Verdict]] = {
    "nothing": (b"", Verdict.TRUNCATED),
    "outer header cut": (OUTER[:33], Verdict.TRUNCATED),
    "outer header alone, which claims more": (OUTER[:34], Verdict.MALFORMED),
    "outer header alone, honest": (tunnelled(b"", MUX, HOST), Verdict.TRUNCATED),
    "inner header cut, honest": (tunnelled(INNER.packet()[:19], MUX, HOST), Verdict.TRUNCATED),
    "inner packet cut, honest": (tunnelled(INNER.packet()[:-1], MUX, HOST), Verdict.MALFORMED),
    "inner TCP header cut, honest": (tunnelled(Craft(length=39).packet()[:39], MUX, HOST), Verdict.MALFORMED),
    "inner length zero": (tunnelled(Craft(length=0).packet(), MUX, HOST), Verdict.MALFORMED),
    "inner options": (tunnelled(Craft(options=bytes(4)).packet(), MUX, HOST), Verdict.OPTIONS),
    "inner fragment": (tunnelled(Craft(fragment=0x2000).packet(), MUX, HOST), Verdict.FRAGMENT),
    "inner ping": (tunnelled(Craft(protocol=1, payload=bytes(8)).packet(), MUX, HOST), Verdict.ICMP),
    "inner IPv6": (tunnelled(b"\x60" + bytes(59), MUX, HOST), Verdict.MALFORMED),
    "inner tunnel": (tunnelled(OUTER[14:], MUX, HOST), Verdict.PROTOCOL),
    "outer fragment": (tunnelled(INNER.packet(), MUX, HOST, fragment=0x2000), Verdict.NOT_TUNNELLED),
    "no tunnel": (INNER.frame(), Verdict.NOT_TUNNELLED),
}


@pytest.mark.parametrize("case", BAD)
def test_is_left_alone(case: str) -> None:
    frame, verdict = BAD[case]
    assert through(frame) == (verdict, -1, frame)
