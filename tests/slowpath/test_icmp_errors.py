"""ICMP errors that the mux sends, dissected by scapy."""

from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, ICMPerror, TCPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_Redirect,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from lbmux.slowpath.icmp_errors import may_have_error, time_exceeded, too_big, unreachable
from tests.slowpath.golden import CLIENT, CLIENT6, ETHER, MUX, MUX6, VIP, VIP6, dissect, ip, read, segment

SOURCE, SOURCE6 = ip_address(MUX), ip_address(MUX6)


def made(data: bytes | None) -> Any:
    assert data is not None
    return dissect(data)


def test_fragmentation_needed_says_the_mtu_and_quotes_the_packet() -> None:
    packet = ip(4, flags="DF") / segment(1460)
    error = made(too_big(read(packet), 1480, SOURCE))
    assert (error.src, error.dst, error.tos) == (MUX, CLIENT, 0xC0)
    assert (error[ICMP].type, error[ICMP].code, error[ICMP].nexthopmtu) == (3, 4, 1480)
    assert (error[TCPerror].sport, error[TCPerror].dport) == (40000, 80)
    assert len(error) == 576 and bytes(error)[28:] == bytes(packet)[:548]


def test_packet_too_big_says_the_mtu_and_quotes_up_to_1280_bytes() -> None:
    packet = ip(6) / segment(1440)
    error = made(too_big(read(packet), 1460, SOURCE6))
    assert (error.src, error.dst, error[ICMPv6PacketTooBig].mtu) == (MUX6, CLIENT6, 1460)
    assert len(error) == 1280 and bytes(error)[48:] == bytes(packet)[:1232]


def test_packet_too_big_never_says_less_than_1280() -> None:
    assert made(too_big(read(ip(6) / segment(1440)), 1240, SOURCE6))[ICMPv6PacketTooBig].mtu == 1280


def test_no_fragmentation_needed_without_df() -> None:
    assert too_big(read(ip(4) / segment(1460)), 1480, SOURCE) is None


def test_time_exceeded() -> None:
    error = made(time_exceeded(read(ip(4, ttl=1) / segment()), SOURCE))
    assert (error[ICMP].type, error[ICMP].code) == (11, 0)
    error = made(time_exceeded(read(ip(6, hlim=1) / segment()), SOURCE6))
    assert error[ICMPv6TimeExceeded].code == 0


def test_unreachable() -> None:
    assert made(unreachable(read(ip(4) / segment()), SOURCE))[ICMP].code == 1
    assert made(unreachable(read(ip(6) / segment()), SOURCE6, 3))[ICMPv6DestUnreach].code == 3


@pytest.mark.parametrize("kind", [3, 4, 5, 11, 12])
def test_no_error_about_an_icmp_error(kind: int) -> None:
    assert time_exceeded(read(ip(4) / ICMP(type=kind) / bytes(ip(4) / segment())), SOURCE) is None


def test_no_error_about_an_icmpv6_error_or_redirect() -> None:
    for error in (ICMPv6DestUnreach(), ICMPv6PacketTooBig(), ICMPv6ND_Redirect()):
        assert time_exceeded(read(ip(6) / error), SOURCE6) is None


def test_an_error_about_a_ping_is_sent() -> None:
    assert made(time_exceeded(read(ip(4) / ICMP()), SOURCE)).haslayer(ICMPerror)
    assert time_exceeded(read(ip(6) / ICMPv6EchoRequest()), SOURCE6) is not None


def test_only_the_first_fragment_gets_an_error() -> None:
    first = IP(src=CLIENT, dst=VIP, id=1, flags="MF", proto=17) / Raw(bytes(64))
    later = IP(src=CLIENT, dst=VIP, id=1, frag=8, proto=17) / Raw(bytes(64))
    assert time_exceeded(read(first), SOURCE) is not None
    assert time_exceeded(read(later), SOURCE) is None
    assert time_exceeded(read(ip(6) / IPv6ExtHdrFragment(offset=8, nh=17) / Raw(bytes(64))), SOURCE6) is None


@pytest.mark.parametrize("source", ["0.0.0.0", "127.0.0.1", "224.0.0.5", "255.255.255.255", "::", "::1", "ff02::1"])
def test_no_error_to_an_address_that_is_not_a_single_hosts(source: str) -> None:
    packet = ip(6, source, VIP6) if ":" in source else ip(4, source, VIP)
    assert not may_have_error(read(packet / segment()))


@pytest.mark.parametrize("destination", ["224.0.0.5", "255.255.255.255", "ff02::1"])
def test_no_error_about_a_multicast_packet(destination: str) -> None:
    packet = ip(6, CLIENT6, destination) if ":" in destination else ip(4, CLIENT, destination)
    assert not may_have_error(read(packet / segment()))


def test_no_error_about_a_link_broadcast() -> None:
    assert not may_have_error(read(Ether(src=ETHER["src"], dst="ff:ff:ff:ff:ff:ff") / ip(4) / segment()))
