"""An IP packet in plain Python: a parser, and a builder for the packets that lbmux sends itself.

``read_frame`` and ``read_ip`` trust nothing: packets come from anywhere, so they return None for a packet that they
cannot parse. ``read_ip`` also accepts truncated packets, as ICMP errors quote them. The data path has its own parser.
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
"""The same bound as in the data path. An unbounded chain would let a sender keep us busy."""
DONT_FRAGMENT, MORE_FRAGMENTS, OFFSET_MASK = 0x4000, 0x2000, 0x1FFF
HOPS = 64


@dataclass(frozen=True)
class Packet:
    """One IP packet. ``data`` begins with the IP header and has no link padding at its end."""

    data: bytes
    source: Address
    destination: Address
    protocol: int
    """The protocol of the header at ``transport``; in a later fragment, of the datagram."""
    transport: int
    """The offset in ``data`` of the transport header or, in a later fragment, of the payload."""
    length_bytes: int
    """The length that the header states. In an ICMP quote ``data`` is shorter."""
    hops: int
    traffic_class: int
    identification: int = 0
    offset_bytes: int = 0
    more: bool = False
    dont_fragment: bool = True
    fragment_at: int = 0
    """The offset of an IPv6 fragment header, or 0 if there is none."""
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
        """Source and destination port, or None if the packet does not contain them."""
        if self.protocol not in (TCP, UDP) or self.offset_bytes or len(self.data) < self.transport + 4:
            return None
        source, destination = struct.unpack_from("!HH", self.data, self.transport)
        return source, destination


def read_frame(frame: bytes) -> Packet | None:
    """Parse the IP packet in an Ethernet frame with at most MOST_TAGS VLAN tags."""
    at = ETHERNET_BYTES
    while len(frame) >= at + TAG_BYTES and at < ETHERNET_BYTES + MOST_TAGS * TAG_BYTES:
        if int.from_bytes(frame[at - 2 : at], "big") not in TAG_TYPES:
            break
        at += TAG_BYTES
    version = {TYPE_IPV4: 4, TYPE_IPV6: 6}.get(int.from_bytes(frame[at - 2 : at], "big"))
    packet = read_ip(frame[at:], link=frame[:at])
    return packet if packet is not None and packet.version == version else None


def read_ip(data: bytes, *, truncated: bool = False, link: bytes = b"") -> Packet | None:
    """Parse the IP packet at the start of ``data``. ``truncated``: its end may be missing, as in an ICMP error."""
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
        if protocol not in EXTENSIONS or offset_bytes:  # a later fragment has no header after the fragment header
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
    """Build a packet, with the IPv4 header's checksum. ``payload`` is complete, including its own checksum."""
    if source.version == 6:
        head = struct.pack("!IHBB", 6 << 28 | traffic_class << 20, len(payload), protocol, hops)
        return head + source.packed + destination.packed + payload
    length = IPV4_BYTES + len(payload)
    fields = struct.pack("!BBHHHBBH", 0x45, traffic_class, length, 0, DONT_FRAGMENT, hops, protocol, 0)
    return with_header_checksum(fields + source.packed + destination.packed) + payload


def icmp_packet(
    source: Address, destination: Address, message: bytes, *, traffic_class: int = 0, hops: int = HOPS
) -> bytes:
    """Build a packet with an ICMP message of the addresses' family. This computes the message's checksum."""
    protocol = ICMP if source.version == 4 else ICMPV6
    message = with_checksum(source, destination, protocol, message)
    return ip_packet(source, destination, protocol, message, traffic_class=traffic_class, hops=hops)


def with_header_checksum(header: bytes) -> bytes:
    """Return an IPv4 header, including its options, with the correct checksum."""
    return header[:10] + checksum(header[:10] + b"\0\0" + header[12:]).to_bytes(2, "big") + header[12:]


def with_hops(packet: bytes, hops: int) -> bytes:
    """Return the packet with another TTL (hop limit)."""
    if packet[0] >> 4 == 6:
        return packet[:7] + bytes([hops]) + packet[8:]
    size = (packet[0] & 15) * 4
    return with_header_checksum(packet[:8] + bytes([hops]) + packet[9:size]) + packet[size:]


def reversed_link(link: bytes) -> bytes:
    """Return the link header of an answer: back to the frame's sender, in the same VLAN."""
    return link[6:12] + link[:6] + link[12:]
