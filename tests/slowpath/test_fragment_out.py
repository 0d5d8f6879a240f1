"""Fragmented packets, reassembled by scapy."""

import pytest
from scapy.layers.inet import IP, UDP, defragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, defragment6
from scapy.packet import Raw

from lbmux.slowpath.fragment_out import fragment_packet
from tests.slowpath.golden import datagram, dissect, ip


def test_a_packet_that_fits_is_not_fragmented() -> None:
    packet = bytes(ip(4) / datagram(1000))
    assert fragment_packet(packet, len(packet), 7) == [packet]


@pytest.mark.parametrize("mtu", [68, 576, 1400, 1499, 1500])
def test_ipv4_fragments_fit_and_make_the_packet_again(mtu: int) -> None:
    packet = ip(4, id=7) / datagram(3000)
    pieces = fragment_packet(bytes(packet), mtu, 7)
    assert all(len(piece) <= mtu for piece in pieces)
    assert all(dissect(piece).id == 7 for piece in pieces)  # their header checksums are right
    (whole,) = defragment([IP(piece) for piece in pieces])
    assert bytes(whole[UDP]) == bytes(packet[UDP])


@pytest.mark.parametrize("mtu", [1280, 1400, 1500])
def test_ipv6_fragments_fit_and_make_the_packet_again(mtu: int) -> None:
    packet = ip(6, tc=0x28, fl=77, hlim=9) / datagram(3000)
    pieces = fragment_packet(bytes(packet), mtu, 0x12345678)
    assert all(len(piece) <= mtu for piece in pieces)
    parts = [IPv6(piece) for piece in pieces]
    assert {(part.tc, part.fl, part.hlim, part[IPv6ExtHdrFragment].id) for part in parts} == {(0x28, 77, 9, 0x12345678)}
    whole = defragment6(parts)
    assert bytes(whole[UDP]) == bytes(packet[UDP])


def test_a_fragment_of_a_fragment_keeps_its_offset() -> None:
    middle = IP(src="10.0.0.1", dst="10.0.0.2", id=7, flags="MF", frag=185, proto=17) / Raw(bytes(1480))
    parts = [IP(piece) for piece in fragment_packet(bytes(middle), 800, 7)]
    assert [(part.frag, int(part.flags.MF)) for part in parts] == [(185, 1), (185 + 97, 1)]
    last = IP(src="10.0.0.1", dst="10.0.0.2", id=7, frag=185, proto=17) / Raw(bytes(1480))
    assert [int(IP(piece).flags.MF) for piece in fragment_packet(bytes(last), 800, 7)] == [1, 0]
