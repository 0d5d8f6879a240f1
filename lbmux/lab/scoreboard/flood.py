"""Floods of a VIP: packets that no connection sends, at a bounded rate for a bounded time."""

import itertools
import random
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, ip_address

from lbmux.addresses import Address
from lbmux.wire.header_layouts import ICMP_BYTES, IPV4, IPV4_BYTES
from lbmux.wire.icmp_types import ECHO_REQUEST
from lbmux.wire.internet_checksum import with_header_checksum
from lbmux.wire.numbers import ACK, IPV4_WITHOUT_OPTIONS, MF, SYN, TCP_PROTOCOL, UDP_PROTOCOL
from lbmux.wire.packet import HOPS, icmp_packet, tcp_header, transport_packet, udp_header

PACKETS, SECONDS = 20_000, 3.0
FLOOD_PER_S = 20_000
"""The rate of floods with spoofed sources, in packets per second."""
FIRST_PORT = 1024
"""The first source port.  The range ends below Linux's ephemeral ports (32768), so it hits no real connection."""
AT_ONCE = 100
SPOOFED, SPOOFED_COUNT = int(IPv4Address("198.18.0.0")), 1 << 17
"""Source addresses that nothing in the lab has (RFC 2544)."""
PAYLOAD = bytes(64)
Packets = Iterator[bytes]


def acknowledgments(client: Address, vip: Address, port: int, count: int = PACKETS) -> Packets:
    """Return IP packets with a bare ACK, each from the client's next port.  At most 31,744 flows differ."""
    for n in range(count):
        source_port = FIRST_PORT + n % (32768 - FIRST_PORT)
        header = tcp_header(source_port, port, ACK, 1000 + n, 2000 + n, window=1024)
        yield transport_packet(client, vip, TCP_PROTOCOL, header)


def sources(seed: int | None = None) -> Iterator[tuple[Address, int]]:
    """Yield random addresses and ports, without end.

    By default others each time: muxes take flows that come again within half a minute for those of real clients.
    """
    numbers = random.Random(seed)
    while True:
        address = IPv4Address(SPOOFED + numbers.randrange(SPOOFED_COUNT))
        yield address, numbers.randrange(FIRST_PORT, 1 << 16)


def syns(vip: Address, port: int) -> Packets:
    for number, (source, source_port) in enumerate(sources()):
        yield transport_packet(source, vip, TCP_PROTOCOL, tcp_header(source_port, port, SYN, number, window=1024))


def datagrams(vip: Address, port: int) -> Packets:
    for source, source_port in sources():
        header = udp_header(source_port, port, len(PAYLOAD))
        yield transport_packet(source, vip, UDP_PROTOCOL, header + PAYLOAD)


def pings(vip: Address, port: int) -> Packets:
    message = bytes([ECHO_REQUEST]) + bytes(ICMP_BYTES - 1) + PAYLOAD
    return (icmp_packet(source, vip, message) for source, _ in sources())


def fragments(vip: Address, port: int) -> Packets:
    """Return first fragments of datagrams whose rest never comes."""
    for number, (source, source_port) in enumerate(sources()):
        payload = udp_header(source_port, port, 2 * len(PAYLOAD)) + PAYLOAD
        header = IPV4.pack(
            version_ihl=IPV4_WITHOUT_OPTIONS, length=IPV4_BYTES + len(payload), identification=number & 0xFFFF,
            fragment=MF, ttl=HOPS, protocol=UDP_PROTOCOL, source=source.packed, destination=vip.packed,
        )  # fmt: skip
        yield with_header_checksum(header) + payload


def mixed(vip: Address, port: int) -> Packets:
    """Return all kinds in turn."""
    for group in zip(*(kind(vip, port) for kind in (syns, datagrams, pings, fragments)), strict=False):
        yield from group


KINDS: dict[str, Callable[[Address, int], Packets]] = {
    "flood-syn": syns, "flood-udp": datagrams, "flood-icmp": pings, "flood-fragments": fragments, "flood-vip": mixed,
}  # fmt: skip
"""What each event sends, from sources that do not exist."""


def flood(vip: str, port: int, count: int = PACKETS, seconds: float = SECONDS) -> None:
    """Send ACKs from this machine's own address.  Needs CAP_NET_RAW."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((vip, port))
        client = ip_address(probe.getsockname()[0])
    send(list(acknowledgments(client, ip_address(vip), port, count)), vip, seconds)


def spoofed(kind: str, vip: str, port: int, per_s: int = FLOOD_PER_S, seconds: float = SECONDS) -> list[bytes]:
    """Return the packets of one of ``KINDS`` for a flood of this rate and time.  Making them takes about a second."""
    return list(itertools.islice(KINDS[kind](ip_address(vip), port), round(per_s * seconds)))


def send(packets: Sequence[bytes], to: str, seconds: float) -> int:
    """Send IP packets spread evenly over ``seconds``, and return how many were sent.  Needs CAP_NET_RAW."""
    count, begun = len(packets), time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        for at in range(0, count, AT_ONCE):
            if time.monotonic() - begun > seconds + 1:
                return at
            for packet in packets[at : at + AT_ONCE]:
                sock.sendto(packet, (to, 0))
            time.sleep(max(0.0, begun + seconds * (at + AT_ONCE) / count - time.monotonic()))
    return count
