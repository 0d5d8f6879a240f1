"""A packet as the slow path sees it: link header with its VLAN tags, IP header of either family, what it carries.

Everything else here begins with ``read_frame`` or ``read_ip``.  They rely on nothing: packets come from anybody, so
what cannot be read is None.  ``read_ip`` takes packets whose end is missing, too, as ICMP errors quote them.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from lbmux.addresses import Address
from lbmux.wire.internet_checksum import ICMP, ICMPV6, TCP, UDP, checksum, with_checksum

ETHERNET_BYTES, TAG_BYTES, MOST_TAGS = 14, 4, 2
IPV4_BYTES, IPV6_BYTES, FRAGMENT_BYTES = 20, 40, 8
TYPE_IPV4, TYPE_IPV6, TAG_TYPES = 0x0800, 0x86DD, (0x8100, 0x88A8)
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS = 0, 43, 44, 51, 60
EXTENSIONS = (HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS)
MOST_EXTENSIONS = 8
"""As in the data path: a chain without a bound would be a way to keep us busy."""
DONT_FRAGMENT, MORE_FRAGMENTS, OFFSET_MASK = 0x4000, 0x2000, 0x1FFF
HOPS = 64


@dataclass(frozen=True)
class Packet:
    """One IP packet.  ``data`` begins with its IP header and has no link padding behind."""

    data: bytes
    source: Address
    destination: Address
    protocol: int
    """Of what stands at ``transport``; in a later fragment, of the datagram."""
    transport: int
    """Where in ``data`` the transport header begins, or the rest of a fragment's datagram."""
    length_bytes: int
    """What the header claims; ``data`` is shorter in a quote."""
    hops: int
    traffic_class: int
    identification: int = 0
    offset_bytes: int = 0
    more: bool = False
    dont_fragment: bool = True
    fragment_at: int = 0
    """Where an IPv6 fragment header stands, 0 where there is none."""
    link: bytes = b""
    """The Ethernet header and its tags."""

    @property
    def version(self) -> int:
        return self.source.version

    @property
    def payload(self) -> bytes:
        return self.data[self.transport :]

    @property
    def is_fragment(self) -> bool:
        return self.more or self.offset_bytes > 0

    @property
    def is_icmp(self) -> bool:
        return self.protocol == (ICMP if self.version == 4 else ICMPV6)

    @property
    def ports(self) -> tuple[int, int] | None:
        """Source and destination port, where they are there to be read."""
        if self.protocol not in (TCP, UDP) or self.offset_bytes or len(self.data) < self.transport + 4:
            return None
        source, destination = struct.unpack_from("!HH", self.data, self.transport)
        return source, destination


def read_frame(frame: bytes) -> Packet | None:
    """The IP packet in an Ethernet frame, behind at most MOST_TAGS tags."""
    at = ETHERNET_BYTES
    while len(frame) >= at + TAG_BYTES and at < ETHERNET_BYTES + MOST_TAGS * TAG_BYTES:
        if int.from_bytes(frame[at - 2 : at], "big") not in TAG_TYPES:
            break
        at += TAG_BYTES
    version = {TYPE_IPV4: 4, TYPE_IPV6: 6}.get(int.from_bytes(frame[at - 2 : at], "big"))
    packet = read_ip(frame[at:], link=frame[:at])
    return packet if packet is not None and packet.version == version else None


def read_ip(data: bytes, *, truncated: bool = False, link: bytes = b"") -> Packet | None:
    """The IP packet at the beginning of ``data``; ``cut``: its end may be missing, as in an ICMP error."""
    if len(data) >= IPV4_BYTES and data[0] >> 4 == 4:
        return _read_ipv4(data, truncated, link)
    if len(data) >= IPV6_BYTES and data[0] >> 4 == 6:
        return _read_ipv6(data, truncated, link)
    return None


def _read_ipv4(data: bytes, truncated: bool, link: bytes) -> Packet | None:
    tos, length, identification, fragment, hops, protocol = struct.unpack_from("!xBHHHBB", data)
    size = (data[0] & 15) * 4
    if not IPV4_BYTES <= size <= min(length, len(data)) or (length > len(data) and not truncated):
        return None
    return Packet(
        data[:length], IPv4Address(data[12:16]), IPv4Address(data[16:20]), protocol, size, length, hops, tos,
        identification, (fragment & OFFSET_MASK) * 8, bool(fragment & MORE_FRAGMENTS), bool(fragment & DONT_FRAGMENT),
        link=link,
    )  # fmt: skip


def _read_ipv6(data: bytes, truncated: bool, link: bytes) -> Packet | None:
    first, payload_bytes, protocol, hops = struct.unpack_from("!IHBB", data)
    length, at = payload_bytes + IPV6_BYTES, IPV6_BYTES
    if length > len(data) and not truncated:
        return None
    identification, offset_bytes, more, fragment_at = 0, 0, False, 0
    for _ in range(MOST_EXTENSIONS):
        if protocol not in EXTENSIONS or offset_bytes:  # behind a later fragment's header is no header
            break
        if at + 8 > min(length, len(data)):
            return None
        following, size = data[at], (data[at + 1] + 1) * 8
        if protocol == FRAGMENT:
            size, fragment_at = FRAGMENT_BYTES, at
            field, identification = struct.unpack_from("!HI", data, at + 2)
            offset_bytes, more = field & 0xFFF8, bool(field & 1)
        elif protocol == AUTHENTICATION:
            size = (data[at + 1] + 2) * 4
        protocol, at = following, at + size
    if at > min(length, len(data)) or (protocol in EXTENSIONS and not offset_bytes):
        return None
    return Packet(
        data[:length], IPv6Address(data[8:24]), IPv6Address(data[24:40]), protocol, at, length, hops,
        first >> 20 & 0xFF, identification, offset_bytes, more, True, fragment_at, link,
    )  # fmt: skip


def ip_packet(
    source: Address, destination: Address, protocol: int, payload: bytes, *, traffic_class: int = 0, hops: int = HOPS
) -> bytes:
    """A new packet, its IPv4 header's checksum right; ``payload`` is as it is to be sent."""
    if source.version == 6:
        head = struct.pack("!IHBB", 6 << 28 | traffic_class << 20, len(payload), protocol, hops)
        return head + source.packed + destination.packed + payload
    length = IPV4_BYTES + len(payload)
    fields = struct.pack("!BBHHHBBH", 0x45, traffic_class, length, 0, DONT_FRAGMENT, hops, protocol, 0)
    return with_header_checksum(fields + source.packed + destination.packed) + payload


def icmp_packet(
    source: Address, destination: Address, message: bytes, *, traffic_class: int = 0, hops: int = HOPS
) -> bytes:
    """A new packet with an ICMP message of the addresses' family, whose checksum is made here."""
    protocol = ICMP if source.version == 4 else ICMPV6
    message = with_checksum(source, destination, protocol, message)
    return ip_packet(source, destination, protocol, message, traffic_class=traffic_class, hops=hops)


def with_header_checksum(header: bytes) -> bytes:
    """An IPv4 header, its options included, with its right checksum."""
    return header[:10] + checksum(header[:10] + b"\0\0" + header[12:]).to_bytes(2, "big") + header[12:]


def with_hops(packet: bytes, hops: int) -> bytes:
    """The packet with another TTL (hop limit)."""
    if packet[0] >> 4 == 6:
        return packet[:7] + bytes([hops]) + packet[8:]
    size = (packet[0] & 15) * 4
    return with_header_checksum(packet[:8] + bytes([hops]) + packet[9:size]) + packet[size:]


def reversed_link(link: bytes) -> bytes:
    """The link header of an answer: back to where the frame came from, in the same VLAN."""
    return link[6:12] + link[:6] + link[12:]
