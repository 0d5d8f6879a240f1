"""The mux on ordinary packets against its plain twin: their own path does what the general one would, or leaves it."""

import random
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from itertools import islice
from typing import Any

import pytest

from lbmux.datapath.frame import UNFINISHED_CHECKSUM
from lbmux.datapath.tables import GONE, NO_BASE, UP
from lbmux.datapath.verdicts import Verdict
from tests.datapath.craft import ACK, FIN, RST, SYN, Craft, Stream
from tests.datapath.plain_mux import Backend, Service
from tests.datapath.plain_packet import TCP, UDP
from tests.datapath.test_mux import DNS, DNS6, EMPTY, IDLE, LOCAL6, OTHER, WEB, WEB6, Pair

BACKENDS, SLOTS = 8, 65
FEW = frozenset({"source"})
VIPS = {4: (WEB, DNS, EMPTY, OTHER), 6: (WEB6, DNS6, *(IPv6Address(f"2001:db8::{at}").packed for at in (3, 9)))}
"""The VIPs by IP version, and an address that is none."""
DENIED = {4: IPv4Network("198.18.0.0/17"), 6: IPv6Network("2001:db8:1::/49")}
both = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


def services(version: int = 4) -> list[Service]:
    """Two ports of one VIP and one of UDP, hashing all fields or few; then one for each reason to leave this path: no
    backend, all flows tracked, an access list, a connection id, slots that have changed."""
    pick = random.Random(6)
    web, dns, empty, _ = VIPS[version]

    def slots() -> tuple[int, ...]:
        return tuple(pick.choices(range(BACKENDS), k=SLOTS))

    changed = slots()
    return [
        Service(web, TCP, 80, slots(), IDLE, tracking="changed"),
        Service(web, TCP, 443, slots(), IDLE, seed=0xFFFFFFFF, hashed=FEW, tracking="none"),
        Service(dns, UDP, 53, slots(), IDLE, tracking="changed", rejects=True),
        Service(empty, TCP, 80, (), IDLE, tracking="changed", rejects=True),
        Service(empty, TCP, 443, slots(), IDLE, tracking="all"),
        Service(web, UDP, 0, slots(), IDLE, tracking="none", rules=((DENIED[version], False),)),
        Service(dns, UDP, 443, slots(), IDLE, tracking="changed", quic=(2, 1, {b"\0": 7, b"\x01": 1})),
        Service(dns, TCP, 0, changed, IDLE, tracking="changed", changed=200,
                bases=tuple(pick.choice((at, 3, NO_BASE)) for at in changed)),
    ]  # fmt: skip


def backends(version: int = 4) -> list[Backend]:
    """Backends with IP in IP of that version, except two or three; one whose MAC address is unknown, and one behind a
    small MTU."""
    rows = [Backend(bytes([10, 1, at, 255 - at]), bytes([2, 0, 0, 7, 0, at])) for at in range(BACKENDS)]
    rows[1].local = bytes([255, 255, 255, 254])
    rows[2].destination_mac = bytes(6)
    rows[3].mtu, rows[4].mtu = 576, 9000
    rows[5].kind, rows[6].spread, rows[6].local = "gre", True, bytes([10, 0, 0, 0])
    for at in range(BACKENDS - 1) if version == 6 else ():
        rows[at].remote, rows[at].local = IPv6Address(f"2001:db8:7::{at}").packed, LOCAL6[:-2] + bytes([0, at % 2])
    return rows


def ordinary(version: int = 4) -> Pair:
    return Pair(64, plain=True, rows=(services(version), backends(version)))


def destinations(version: int = 4) -> list[tuple[bytes, int, int]]:
    known = [(service.vip, service.protocol, service.port) for service in services(version)]
    web, *_, other = VIPS[version]
    return [*known, *known[:3] * 4, (other, TCP, 80), (web, TCP, 81)]


def to(version: int, vip: int = 0, **fields: Any) -> Craft:
    """A packet to one of the VIPs."""
    craft = Craft(destination=VIPS[version][vip], **fields)
    return craft if version == 4 else replace(craft, source=IPv6Address("2001:db8:1::77").packed)


@both
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_plain_mux(seed: int, version: int) -> None:
    pair, pick = ordinary(version), random.Random(seed)
    frames, now = Stream(seed, destinations(version)).frames(), 0xFFFFFF00
    for _ in range(60):
        some = list(islice(frames, 40))
        pair.run(some, now, pick.choices([0, UNFINISHED_CHECKSUM], [9, 1], k=len(some)))
        now = (now + pick.choice([0, 1, 10, 60, 450])) & 0xFFFFFFFF
    pair.check_tables()
    assert {Verdict.FORWARDED, Verdict.NO_NEIGHBOUR, Verdict.TOO_BIG, Verdict.DENIED} <= set(
        pair.plain.counters.verdicts
    )


@both
def test_every_length_and_every_checksum(version: int) -> None:
    """Sums of all sizes, with carries and without: the outer header's checksum is a matter of a few additions."""
    pair = ordinary(version)
    pick = random.Random(7)
    crafts = [
        to(version, source_port=pick.getrandbits(16), tos=pick.choice([0, 3, 0xFF]), payload=bytes(length),
              identification=pick.choice([0, 0xFF, 0xFFFE, 0xFFFF]), fragment=pick.choice([0, 0x4000, 0xC000]))
        for length in range(1450)
    ]  # fmt: skip
    pair.run([craft.frame() for craft in crafts], 1, [0] * len(crafts))
    pair.check_tables()


@pytest.mark.parametrize("checksum", [0, 1, 0xFEFF, 0xFFFE, 0xFFFF])
def test_the_inner_checksum_is_adjusted_not_made(checksum: int) -> None:
    frame = bytearray(Craft().frame())
    frame[24:26] = checksum.to_bytes(2, "big")
    pair = ordinary()
    pair.run([bytes(frame)], 1, [0])


@both
def test_a_syn_is_counted_once_wherever_it_ends(version: int) -> None:
    pair = ordinary(version)
    for length in (0, 560, 1460):
        syns = [to(version, source_port=port, flags=SYN, payload=bytes(length)).frame() for port in range(1024, 1224)]
        pair.run(syns, 1, [0] * len(syns))
    pair.check_tables()


@both
def test_flags_of_a_datagram_are_payload(version: int) -> None:
    pair = ordinary(version)
    datagram = to(version, 1, protocol=UDP, destination_port=53, payload=b"\xff" * 20)
    pair.run([datagram.frame()], 1, [0])
    pair.check_tables()
    assert pair.machine.tables.traffic["flows"].sum() == 0


@both
def test_established_flows_that_end_move_idle_out_or_lose_their_backend(version: int) -> None:
    pair, pick, now = ordinary(version), random.Random(8), 1
    for turn in range(40):
        flags = pick.choices([ACK, SYN, FIN | ACK, RST], [20, 2, 1, 1], k=200)
        crafts = [to(version, 2, destination_port=443, source_port=1024 + pick.randrange(300)) for _ in flags]
        frames = [replace(craft, flags=flag).frame() for craft, flag in zip(crafts, flags, strict=True)]
        pair.run(frames, now, [0] * len(frames))
        if turn % 8 == 7:
            pair.change_backend(pick.randrange(BACKENDS), turn, pick.choice((UP, GONE)))
        now += pick.choice([0, 1, 10, 450])
    pair.check_tables()
    assert {"hit", "new", "expired", "gone"} <= pair.plain.flows.lookups.keys()
