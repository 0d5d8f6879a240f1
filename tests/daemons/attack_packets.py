"""Packets that attack a mux's slow path: second chance without an end, and forged ICMP errors about its tunnels."""

from collections.abc import Iterator
from ipaddress import ip_address

from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.packet import Packet, Raw

from lbmux.lab.scoreboard.flood import acknowledgments
from tests.daemons.slow_lab import CLIENT, CLIENT6, DIPS, HOSTS, PORT, VIPS

MUXES = {4: "10.0.1.2", 6: "2001:db8:0:1::2"}
CLIENTS = {4: CLIENT, 6: CLIENT6}
INVENTED = {4: "10.77.0.1", 6: "2001:db8:77::1"}
ACKS, ERRORS, RETURNED = 4500, 1500, 300
QUOTED_BYTES = {4: 28, 6: 48}
"""An IP header and eight bytes, as old routers quote."""
ICMP_AT = {4: 20, 6: 40}
QUOTED_HOST_AT = {4: 28 + 16, 6: 48 + 24}
"""The offset of the destination in a quoted outer packet."""


def ip(family: int, source: str, destination: str, ttl: int = 64) -> Packet:
    if family == 4:
        return IP(src=source, dst=destination, ttl=ttl)
    return IPv6(src=source, dst=destination, hlim=ttl)


def to_client_of(family: int) -> Packet:
    """A client's packet that is too long for a narrow path."""
    return ip(family, CLIENTS[family], VIPS[family]) / TCP(sport=40000, dport=PORT["tcp"], flags="A") / Raw(bytes(1300))


def forged(family: int, host: str, quoted_bytes: int) -> bytes:
    """An error that says MTU 68 about a packet from the mux to a host."""
    outer = bytes(ip(family, MUXES[family], host) / to_client_of(family))[:quoted_bytes]
    error = ICMP(type=3, code=4, nexthopmtu=68) if family == 4 else ICMPv6PacketTooBig(mtu=68)
    return bytes(ip(family, CLIENTS[family], MUXES[family]) / error / Raw(outer))


def with_checksum(family: int, packet: bytes) -> bytes:
    """The packet with the right ICMP checksum after a change of what it quotes."""
    parsed = IP(packet) if family == 4 else IPv6(packet)
    error = parsed[ICMP] if family == 4 else parsed[ICMPv6PacketTooBig]
    if family == 4:
        del error.chksum
    else:
        error.cksum = None
    return bytes(parsed)


def mid_connection(family: int) -> Iterator[bytes]:
    """ACKs of more flows than any table of searches could hold."""
    client, vip = ip_address(CLIENTS[family]), ip_address(VIPS[family])
    yield from acknowledgments(client, vip, PORT["tcp"], ACKS)


def about_invented_hosts(family: int) -> Iterator[bytes]:
    packet = forged(family, INVENTED[family], QUOTED_BYTES[family])
    end = QUOTED_HOST_AT[family] + (4 if family == 4 else 16)
    for number in range(ERRORS):
        yield with_checksum(family, packet[: end - 2] + number.to_bytes(2, "big") + packet[end:])


def about_hosts(family: int) -> Iterator[bytes]:
    """Errors about the mux's own hosts: with eight bytes quoted, and with a client's packet of an unknown flow."""
    for number in HOSTS:
        host = DIPS[family].format(number)
        yield from [forged(family, host, QUOTED_BYTES[family])] * 50
        yield from [forged(family, host, 500)] * 50


def returned(family: int) -> Iterator[bytes]:
    """Packets that only a host may send: returned ones, the last with an expired TTL."""
    host = DIPS[family].format(HOSTS[0])
    for number in range(RETURNED):
        segment = TCP(sport=1024 + number, dport=PORT["tcp"], flags="A")
        inner = ip(family, CLIENTS[family], VIPS[family], ttl=1 + number % 2) / segment
        yield bytes(ip(family, host, MUXES[family]) / inner)
