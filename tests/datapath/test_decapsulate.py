"""The outer header comes off; nothing else changes."""

from dataclasses import replace

import pytest

from lbmux.datapath.verdicts import Verdict
from tests.datapath.craft import ETHERNET, Craft, tag, tunnelled
from tests.datapath.harness import Frames, Machine
from tests.datapath.plain_agent import LOCAL, Endpoint
from tests.datapath.plain_packet import TCP, UDP, Packet, parse
from tests.datapath.plain_tunnel import KINDS, encapsulate

HOST, MUX = bytes([10, 1, 1, 2]), bytes([10, 0, 1, 2])
HOST6, MUX6 = bytes(15) + b"\x02", bytes(15) + b"\x03"
INNER = Craft(payload=bytes(range(50)))
INNER6 = replace(INNER, source=bytes(15) + b"\x07", destination=bytes(15) + b"\x08")


def gre(header: bytes) -> bytes:
    return Craft(source=MUX, destination=HOST, protocol=47, payload=header + INNER.packet()).frame()


def udp(port: int, data: bytes) -> bytes:
    return Craft(source=MUX, destination=HOST, protocol=UDP, destination_port=port, payload=data).frame()


def through(frame: bytes) -> tuple[Verdict, int, bytes]:
    machine = Machine.make(16)
    endpoints = [Endpoint(craft.destination, 80, HOST, 80, TCP, owner=0, mode=LOCAL) for craft in (INNER, INNER6)]
    machine.install_agent([HOST, HOST6], [MUX, MUX6], endpoints)
    batch = Frames([frame])
    machine.worker.inbound(batch, 1)
    assert batch.untouched_around()
    return batch.results()[0]


@pytest.mark.parametrize("padding", [b"", bytes(30)], ids=["bare", "padded"])
def test_decapsulation_keeps_the_ethernet_header_and_the_inner_packet(padding: bytes) -> None:
    frame = tunnelled(INNER.packet(), MUX, HOST) + padding
    assert through(frame) == (Verdict.DELIVERED, 0, ETHERNET + b"\x08\x00" + INNER.packet() + padding)


@pytest.mark.parametrize(
    "fields", [{"ttl": 1}, {"tos": 0xFE}, {"identification": 9}, {"fragment": 0}], ids=lambda fields: next(iter(fields))
)
def test_the_outer_header_s_fields_leave_no_trace(fields: dict[str, int]) -> None:
    assert through(tunnelled(INNER.packet(), MUX, HOST, **fields))[2][14:] == INNER.packet()


FIGURE_4 = {
    (0, 0): 0, (0, 1): 0, (0, 2): 0, (0, 3): None,
    (1, 0): 1, (1, 1): 1, (1, 2): 1, (1, 3): 3,
    (2, 0): 2, (2, 1): 1, (2, 2): 2, (2, 3): 3,
    (3, 0): 3, (3, 1): 3, (3, 2): 3, (3, 3): 3,
}  # fmt: skip
"""RFC 6040, figure 4: (inner, outer) ECN bits and what comes out; None: the packet is dropped."""


@pytest.mark.parametrize(("inner", "outer"), FIGURE_4)
@pytest.mark.parametrize("base", [INNER, INNER6], ids=["IPv4", "IPv6"])
def test_a_router_s_mark_on_the_outer_header_is_carried_over(base: Craft, inner: int, outer: int) -> None:
    frame = tunnelled(replace(base, tos=0xB8 | inner).packet(), MUX, HOST, tos=outer)
    verdict, _, after = through(frame)
    expected = FIGURE_4[inner, outer]
    if expected is None:
        assert (verdict, after) == (Verdict.CONGESTED, frame)
    else:
        assert (verdict, after[14:]) == (Verdict.DELIVERED, replace(base, tos=0xB8 | expected).packet())


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
    "inner fragment": (tunnelled(Craft(fragment=0x2000).packet(), MUX, HOST), Verdict.FRAGMENT),
    "inner ping": (tunnelled(Craft(protocol=1, payload=bytes(8)).packet(), MUX, HOST), Verdict.ICMP),
    "inner IPv6 with the protocol of IPv4": (
        Craft(source=MUX, destination=HOST, protocol=4, payload=INNER6.packet()).frame(),
        Verdict.MALFORMED,
    ),
    "inner IPv6 cut": (tunnelled(INNER6.packet()[:-1], MUX, HOST), Verdict.MALFORMED),
    "GRE with a checksum": (gre(b"\x80\0\x08\0"), Verdict.NOT_TUNNELLED),
    "GRE of something else": (gre(b"\0\0\x08\x06"), Verdict.NOT_TUNNELLED),
    "GRE cut": (Craft(source=MUX, destination=HOST, protocol=47, payload=b"\0\0\x08").frame(), Verdict.NOT_TUNNELLED),
    "UDP to another port": (udp(6082, INNER.packet()), Verdict.NOT_TUNNELLED),
    "GUE of version 2": (udp(6080, b"\x80" + INNER.packet()), Verdict.NOT_TUNNELLED),
    "GUE control message": (udp(6080, b"\x20\x04\0\0" + INNER.packet()), Verdict.NOT_TUNNELLED),
    "GUE data beyond the packet": (udp(6080, b"\x1f\x04\0\0" + INNER.packet()[:30]), Verdict.TRUNCATED),
    "Geneve cut": (udp(6081, bytes(5)), Verdict.NOT_TUNNELLED),
    "Geneve of Ethernet": (udp(6081, b"\0\0\x65\x58" + bytes(60)), Verdict.NOT_TUNNELLED),
    "inner tunnel": (tunnelled(OUTER[14:], MUX, HOST), Verdict.PROTOCOL),
    "outer fragment": (tunnelled(INNER.packet(), MUX, HOST, fragment=0x2000), Verdict.NOT_TUNNELLED),
    "no tunnel": (INNER.frame(), Verdict.NOT_TUNNELLED),
}


@pytest.mark.parametrize("case", BAD)
def test_passes_to_the_kernel_unchanged(case: str) -> None:
    frame, verdict = BAD[case]
    assert through(frame) == (verdict, -1, frame)


PRIVATE = b"\x02\x04\0\0" + bytes(8)
OPTION = b"\x02\0\x08\0\0\0\0\0" + bytes(8)


@pytest.mark.parametrize("head", [(6080, PRIVATE), (6081, OPTION)], ids=["GUE private data", "Geneve options"])
def test_data_that_we_do_not_know_is_skipped_in_user_space(head: tuple[int, bytes]) -> None:
    port, shim = head
    assert through(udp(port, shim + INNER.packet())) == (Verdict.DELIVERED, 0, ETHERNET + b"\x08\x00" + INNER.packet())


KINDS_AND_FAMILIES = [(kind, outer, inner) for kind in KINDS[:5] for outer in (4, 6) for inner in (4, 6)]


@pytest.mark.parametrize(("kind", "outer", "inner"), KINDS_AND_FAMILIES)
@pytest.mark.parametrize("tags", [b"", tag(7), tag(9, 0x88A8) + tag(7)], ids=["bare", "tagged", "QinQ"])
def test_every_kind_of_tunnel_is_removed(kind: str, outer: int, inner: int, tags: bytes) -> None:
    """The plain twin of the mux encapsulates."""
    craft = replace(INNER if inner == 4 else INNER6, tags=tags)
    packet = parse(craft.frame())
    assert isinstance(packet, Packet)
    local, remote = (MUX, HOST) if outer == 4 else (MUX6, HOST6)
    frame = encapsulate(craft.frame(), packet, kind, bytes(6), bytes(6), local, remote, entropy=12345)
    verdict, _, after = through(frame)
    assert verdict == Verdict.DELIVERED
    assert after[12:] == replace(craft, ttl=craft.ttl - 1, tags=b"").frame()[12:]
