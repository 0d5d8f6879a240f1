"""ICMP errors about a flow: the quoted flow, and the quote as the server must see it."""

from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, ICMPv6TimeExceeded, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Raw

from lbmux.slowpath.icmp_quotes import flow_of, translate_error
from lbmux.slowpath.slow_path_flow import Flow
from tests.slowpath.golden import CLIENT, CLIENT6, DIP, DIP6, VIP, VIP6, back, dissect, ip, read

ROUTER, ROUTER6 = "192.0.2.1", "2001:db8:a::1"
LENGTHS = [8, 20, 500]
"""Bytes of the transport header and what follows, that a router quotes: RFC 792's, a TCP header, RFC 1812's."""


def reply(family: int, carried: Any, head: Any = None) -> Any:
    """What the client sees of a server's packet; ``head``: extension headers."""
    return back(family) / head / carried if head else back(family) / carried


def server_reply(family: int, carried: Any) -> Any:
    """The same packet as the server sent it."""
    return ip(family, DIP if family == 4 else DIP6, CLIENT if family == 4 else CLIENT6) / carried


def error(family: int, quoted: Any, length_bytes: int = 500) -> Any:
    """A router's "too big" about a packet of which it quotes the IP header and so many bytes more."""
    quote = bytes(quoted)[: (20 if family == 4 else 40) + length_bytes]
    if family == 4:
        return ip(4, ROUTER, VIP) / ICMP(type=3, code=4, nexthopmtu=1400) / Raw(quote)
    return ip(6, ROUTER6, VIP6) / ICMPv6PacketTooBig(mtu=1400) / Raw(quote)


def tcp(sport: int = 80) -> Any:
    return TCP(sport=sport, dport=40000, seq=7) / Raw(bytes(1000))


def udp(sport: int = 53) -> Any:
    return UDP(sport=sport, dport=40000) / Raw(bytes(1000))


@pytest.mark.parametrize("length_bytes", LENGTHS)
@pytest.mark.parametrize("family", [4, 6])
def test_flow_of_tcp(family: int, length_bytes: int) -> None:
    client, vip = (CLIENT, VIP) if family == 4 else (CLIENT6, VIP6)
    expected = Flow(6, ip_address(client), 40000, ip_address(vip), 80)
    assert flow_of(read(error(family, reply(family, tcp()), length_bytes))) == expected


def test_flow_of_udp() -> None:
    assert flow_of(read(error(4, reply(4, udp()), 8))) == Flow(17, ip_address(CLIENT), 40000, ip_address(VIP), 53)


def test_flow_behind_extension_headers() -> None:
    quoted_flow = flow_of(read(error(6, reply(6, tcp(), IPv6ExtHdrDestOpt()), 16)))
    assert quoted_flow == Flow(6, ip_address(CLIENT6), 40000, ip_address(VIP6), 80)


def test_a_quote_without_ports_has_no_flow() -> None:
    assert flow_of(read(error(4, reply(4, tcp()), 3))) is None


def test_a_quote_of_a_later_fragment_has_no_flow() -> None:
    later = IP(src=VIP, dst=CLIENT, frag=10, proto=17) / Raw(bytes(64))
    assert flow_of(read(error(4, later))) is None
    later6 = back(6) / IPv6ExtHdrFragment(offset=10, nh=17) / Raw(bytes(64))
    assert flow_of(read(error(6, later6))) is None


def test_quote_of_another_than_the_error_was_sent_to() -> None:
    assert flow_of(read(error(4, ip(4, "203.0.113.99", CLIENT) / tcp()))) is None


def test_quote_of_the_other_family() -> None:
    assert flow_of(read(error(4, back(6) / tcp()))) is None


def test_damaged_error() -> None:
    whole = bytearray(bytes(error(4, reply(4, tcp()))))
    whole[60] ^= 1
    assert flow_of(read(IP(bytes(whole)))) is None


def test_a_reply_or_a_segment_is_not_an_error() -> None:
    assert flow_of(read(ip(4) / ICMP(type=0) / bytes(reply(4, tcp())))) is None
    assert flow_of(read(ip(4) / tcp())) is None


@pytest.mark.parametrize("length_bytes", LENGTHS)
@pytest.mark.parametrize("carried", [tcp, udp])
@pytest.mark.parametrize("family", [4, 6])
def test_a_translated_error_quotes_the_servers_packet(family: int, carried: Any, length_bytes: int) -> None:
    """Byte by byte, checksums included: what a router would quote, had it seen the server's own packet."""
    dip = DIP if family == 4 else DIP6
    before = read(error(family, reply(family, carried()), length_bytes))
    data = translate_error(before, ip_address(dip), 8080)
    assert data is not None
    dissected = dissect(data)
    assert dissected.dst == dip and dissected.src == (ROUTER if family == 4 else ROUTER6)
    quote = data[28:] if family == 4 else data[48:]
    sent = bytes(server_reply(family, carried(8080)))[: len(quote)]
    assert quote == sent
    assert (dissected[ICMP].nexthopmtu if family == 4 else dissected[ICMPv6PacketTooBig].mtu) == 1400


def test_the_port_stays_if_the_backend_has_none() -> None:
    data = translate_error(read(error(4, reply(4, tcp()))), ip_address(DIP), 0)
    assert data is not None and data[28:] == bytes(server_reply(4, tcp()))[: len(data) - 28]


def test_udp_without_a_checksum_keeps_none() -> None:
    plain = UDP(sport=53, dport=40000, chksum=0) / Raw(bytes(10))
    data = translate_error(read(error(4, reply(4, plain))), ip_address(DIP), 5353)
    assert data is not None and data[28 + 20 + 6 : 28 + 20 + 8] == b"\0\0"


def test_hop_limit_and_class_stay() -> None:
    whole = error(6, reply(6, tcp()))
    whole.hlim, whole.tc = 33, 0xC0
    data = translate_error(read(whole), ip_address(DIP6), 8080)
    assert data is not None and (IPv6(data).hlim, IPv6(data).tc) == (33, 0xC0)


def test_a_dip_of_the_other_family_cannot_be() -> None:
    assert translate_error(read(error(4, reply(4, tcp()))), ip_address(DIP6), 80) is None


def test_time_exceeded_is_translated_too() -> None:
    exceeded = ip(6, ROUTER6, VIP6) / ICMPv6TimeExceeded() / Raw(bytes(reply(6, udp()))[:200])
    data = translate_error(read(exceeded), ip_address(DIP6), 5353)
    assert data is not None and dissect(data).dst == DIP6
