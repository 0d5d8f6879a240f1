"""Reassembly of packets that scapy fragmented."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet import IP, fragment
from scapy.layers.inet6 import IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, fragment6
from scapy.packet import Raw

from lbmux.slowpath.reassembly import MOST_BYTES, MOST_PACKETS, TIMEOUT_S, Reassembly
from lbmux.wire.packet import Packet, read_ip
from tests.slowpath.golden import CLIENT, VIP, datagram, dissect, ip, read


def cut(family: int, identification: int = 7, length_bytes: int = 9000) -> list[Packet]:
    if family == 4:
        return [read(part) for part in fragment(ip(4, id=identification) / datagram(length_bytes), 1400)]
    return [read(p) for p in fragment6(ip(6) / IPv6ExtHdrFragment(id=identification) / datagram(length_bytes), 1400)]


def feed(parts: list[Packet], table: Reassembly | None = None, now: float = 0.0) -> list[bytes]:
    table = table or Reassembly(Counter())
    return [whole for part in parts if (whole := table.add(part, now)) is not None]


@pytest.mark.slow
@pytest.mark.parametrize("family", [4, 6])
def test_in_any_order(family: int) -> None:
    expected = bytes(ip(4, id=7) / datagram(9000)) if family == 4 else bytes(ip(6) / datagram(9000))
    for seed in range(20):
        parts = cut(family)
        random.Random(seed).shuffle(parts)
        assert feed(parts) == [expected]
        dissect(expected)


def test_headers_before_the_fragment_header_stay() -> None:
    parts = fragment6(ip(6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(id=7) / datagram(3000), 1400)
    assert feed([read(part) for part in parts]) == [bytes(ip(6) / IPv6ExtHdrHopByHop() / datagram(3000))]


def test_an_authentication_header_counts_in_units_of_four_bytes() -> None:
    def packet(authentication: bytes, *layers: Any) -> bytes:
        return bytes(ip(6, nh=51) / Raw(authentication + b"".join(map(bytes, layers))))

    body, rest = bytes(range(16)), bytes([1]) + bytes(10)  # 12 bytes with the next header
    parts = [
        packet(bytes([44]) + rest, IPv6ExtHdrFragment(nh=17, id=7, offset=offset, m=offset == 0), Raw(body))
        for offset in (0, 2)
    ]
    assert feed([one for part in parts if (one := read_ip(part))]) == [packet(bytes([17]) + rest, Raw(body + body))]


def test_a_missing_fragment() -> None:
    assert feed(cut(4)[:-1]) == [] and feed(cut(4)[1:]) == []


def test_a_duplicate_is_ignored() -> None:
    counts: Counter[str] = Counter()
    first, *others = cut(4)
    assert len(feed([first, first, *others], Reassembly(counts))) == 1
    assert counts["reassembly_duplicate"] == 1


def test_overlap_spoils_the_packet() -> None:
    first, *others = cut(4)
    over = read(IP(src=CLIENT, dst=VIP, id=7, flags="MF", frag=1, proto=17) / Raw(bytes(64)))
    counts: Counter[str] = Counter()
    table = Reassembly(counts)
    assert feed([first, over, *others], table) == []
    assert counts["reassembly_overlap"] == 1 + len(others) and table.held_bytes == 0


def test_too_late() -> None:
    table, (first, *others) = Reassembly(Counter()), cut(4)
    assert feed([first], table, 0.0) == [] and feed(others, table, TIMEOUT_S + 0.1) == []
    assert feed([first], table, TIMEOUT_S + 0.2) != []


@pytest.mark.slow
def test_bounded() -> None:
    counts: Counter[str] = Counter()
    table, parts = Reassembly(counts), cut(4, 0, 60000)[:-1]
    for number in range(2 * MOST_PACKETS):
        feed([replace(part, identification=number) for part in parts], table)
        assert table.held_bytes <= MOST_BYTES
    assert counts["reassembly_evicted"] > MOST_PACKETS


@pytest.mark.parametrize("length_bytes", [8, 1400], ids=["many packets", "many bytes"])
def test_a_flood_of_fragments_does_not_drive_out_the_packets_of_other_sources(length_bytes: int) -> None:
    table, (first, *rest) = Reassembly(Counter()), cut(4, 1, 3000)
    feed([first], table)
    flood = read(IP(src="192.0.2.99", dst=VIP, proto=17, flags="MF") / Raw(bytes(length_bytes)))
    for number in range(5000):
        feed([replace(flood, identification=number % 300, offset_bytes=length_bytes * (number // 300))], table)
    assert feed(rest, table) == [bytes(ip(4, id=1) / datagram(3000))]


@pytest.mark.parametrize("fields", [{"frag": 8191}, {"frag": 10, "flags": "MF"}], ids=["too long", "odd"])
def test_malformed(fields: dict[str, Any]) -> None:
    counts: Counter[str] = Counter()
    part = read(IP(src=CLIENT, dst=VIP, id=1, proto=17, **fields) / Raw(bytes(63)))
    assert Reassembly(counts).add(part, 0.0) is None and counts == {"reassembly_malformed": 1}
