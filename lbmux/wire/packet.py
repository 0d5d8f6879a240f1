"""An IP packet in plain Python: a parser, and a builder for the packets that lbmux sends itself.

``read_frame`` and ``read_ip`` trust nothing: packets come from anywhere, so they return None for a packet that they
cannot parse. ``read_ip`` also accepts truncated packets, as ICMP errors quote them. The data path has its own parser.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from lbmux.addresses import Address
from lbmux.wire.header_layouts import (
    ETHERNET,
    ETHERNET_BYTES,
    EXTENSION,
    EXTENSION_LEAST_BYTES,
    FRAGMENT,
    FRAGMENT_BYTES,
    IPV4,
    IPV4_BYTES,
    IPV6,
    IPV6_BYTES,
    MOST_EXTENSIONS,
    MOST_TAGS,
    PORTS,
    TAG_BYTES,
    TCP,
    TCP_BYTES,
    UDP,
    UDP_BYTES,
)
from lbmux.wire.internet_checksum import with_checksum, with_header_checksum
from lbmux.wire.numbers import (
    AUTHENTICATION,
    DF,
    ETHERTYPES,
    EXTENSIONS,
    FRAGMENT_HEADER,
    ICMP_BY_VERSION,
    IPV4_WITHOUT_OPTIONS,
    MF,
    OFFSET_MASK,
    OFFSET_UNIT_BYTES,
    TAG_ETHERTYPES,
    TCP_PROTOCOL,
    UDP_PROTOCOL,
    V6_MF,
    V6_OFFSET_MASK,
)

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
        return self.protocol == ICMP_BY_VERSION[self.version]

    @property
    def ports(self) -> tuple[int, int] | None:
        """Source and destination port, or None if the packet does not contain them."""
        if self.protocol not in (TCP_PROTOCOL, UDP_PROTOCOL) or self.offset_bytes:
            return None
        if len(self.data) < self.transport + PORTS.size:
            return None
        ports = PORTS.unpack(self.data, self.transport)
        return ports.source_port, ports.destination_port


def read_frame(frame: bytes) -> Packet | None:
    """Parse the IP packet in an Ethernet frame with at most MOST_TAGS VLAN tags."""
    at = ETHERNET_BYTES
    while len(frame) >= at + TAG_BYTES and at < ETHERNET_BYTES + MOST_TAGS * TAG_BYTES:
        if ethertype(frame[:at]) not in TAG_ETHERTYPES:
            break
        at += TAG_BYTES
    packet = read_ip(frame[at:], link=frame[:at])
    return packet if packet is not None and ETHERTYPES[packet.version] == ethertype(packet.link) else None


def source_bytes(frame: bytes) -> bytes:
    """Return the source address of the packet in an untagged frame, 4 or 16 bytes, without parsing the packet.

    Return no bytes for another frame.
    """
    is_ip = ethertype(frame[:ETHERNET_BYTES]) in ETHERTYPES.values()
    return ip_source_bytes(frame[ETHERNET_BYTES:]) if is_ip else b""


def ip_source_bytes(packet: bytes) -> bytes:
    """Return the source address of an IP packet, 4 or 16 bytes, without parsing it; no bytes for other data."""
    if len(packet) >= IPV4_BYTES and version_of(packet) == 4:
        return packet[12:16]
    return packet[8:24] if len(packet) >= IPV6_BYTES and version_of(packet) == 6 else b""


def read_ip(data: bytes, *, truncated: bool = False, link: bytes = b"") -> Packet | None:
    """Parse the IP packet at the start of ``data``. ``truncated``: its end may be missing, as in an ICMP error."""
    if len(data) >= IPV4_BYTES and version_of(data) == 4:
        return _read_ipv4(data, truncated, link)
    if len(data) >= IPV6_BYTES and version_of(data) == 6:
        return _read_ipv6(data, truncated, link)
    return None


def version_of(packet: bytes) -> int:
    """Return the IP version that a packet's first byte states."""
    return packet[0] >> 4


def ipv4_header_bytes(packet: bytes) -> int:
    """Return the length of an IPv4 header with its options, as its first byte states."""
    return (packet[0] & 15) * 4


def destination_of(packet: bytes) -> Address:
    """Return the destination of a packet whose IP header is complete."""
    if version_of(packet) == 4:
        return IPv4Address(IPV4.unpack(packet).destination)
    return IPv6Address(IPV6.unpack(packet).destination)


def _read_ipv4(data: bytes, truncated: bool, link: bytes) -> Packet | None:
    ip, size = IPV4.unpack(data), ipv4_header_bytes(data)
    if not IPV4_BYTES <= size <= min(ip.length, len(data)) or (ip.length > len(data) and not truncated):
        return None
    return Packet(
        data[: ip.length], IPv4Address(ip.source), IPv4Address(ip.destination), ip.protocol, size, ip.length, ip.ttl,
        ip.tos, ip.identification, (ip.fragment & OFFSET_MASK) * OFFSET_UNIT_BYTES, bool(ip.fragment & MF),
        bool(ip.fragment & DF), link=link,
    )  # fmt: skip


def _read_ipv6(data: bytes, truncated: bool, link: bytes) -> Packet | None:
    ip = IPV6.unpack(data)
    protocol, length, at = ip.next, ip.length + IPV6_BYTES, IPV6_BYTES
    if length > len(data) and not truncated:
        return None
    identification, offset_bytes, more, fragment_at = 0, 0, False, 0
    for _ in range(MOST_EXTENSIONS):
        if protocol not in EXTENSIONS or offset_bytes:  # a later fragment has no header after the fragment header
            break
        if at + EXTENSION_LEAST_BYTES > min(length, len(data)):
            return None
        size = extension_bytes(protocol, data, at)
        if protocol == FRAGMENT_HEADER:
            fragment, fragment_at = FRAGMENT.unpack(data, at), at
            identification, more = fragment.identification, bool(fragment.fragment & V6_MF)
            offset_bytes = fragment.fragment & V6_OFFSET_MASK
        protocol, at = EXTENSION.unpack(data, at).next, at + size
    if at > min(length, len(data)) or (protocol in EXTENSIONS and not offset_bytes):
        return None
    return Packet(
        data[:length], IPv6Address(ip.source), IPv6Address(ip.destination), protocol, at, length, ip.hops,
        ip.version_class_label >> 20 & 0xFF, identification, offset_bytes, more, True, fragment_at, link,
    )  # fmt: skip


def extension_bytes(protocol: int, data: bytes, at: int) -> int:
    """Return the length of the IPv6 extension header at ``at`` (RFC 8200, section 4; RFC 4302, section 2.2)."""
    if protocol == FRAGMENT_HEADER:
        return FRAGMENT_BYTES
    units = EXTENSION.unpack(data, at).length
    return int((units + 2) * 4 if protocol == AUTHENTICATION else (units + 1) * 8)


def ip_packet(
    source: Address,
    destination: Address,
    protocol: int,
    payload: bytes,
    *,
    traffic_class: int = 0,
    hops: int = HOPS,
    dont_fragment: bool = True,
) -> bytes:
    """Build a packet, with the IPv4 header's checksum. ``payload`` is complete, including its own checksum."""
    ends = {"source": source.packed, "destination": destination.packed}
    if source.version == 6:
        first = 6 << 28 | traffic_class << 20
        return IPV6.pack(version_class_label=first, length=len(payload), next=protocol, hops=hops, **ends) + payload
    header = IPV4.pack(
        version_ihl=IPV4_WITHOUT_OPTIONS, tos=traffic_class, length=IPV4_BYTES + len(payload),
        fragment=DF if dont_fragment else 0, ttl=hops, protocol=protocol, **ends,
    )  # fmt: skip
    return with_header_checksum(header) + payload


def tcp_header(
    source_port: int, destination_port: int, flags: int, sequence: int = 0, acknowledgement: int = 0, window: int = 0
) -> bytes:
    """Build a TCP header without options. Its checksum is zero."""
    return TCP.pack(
        source_port=source_port, destination_port=destination_port, sequence=sequence, acknowledgement=acknowledgement,
        offset=TCP_BYTES // 4 << 4, flags=flags, window=window,
    )  # fmt: skip


def udp_header(source_port: int, destination_port: int, payload_bytes: int) -> bytes:
    """Build the header of a UDP datagram. Its checksum is zero."""
    length = UDP_BYTES + payload_bytes
    return UDP.pack(source_port=source_port, destination_port=destination_port, length=length)


def transport_packet(source: Address, destination: Address, protocol: int, segment: bytes) -> bytes:
    """Build a packet with a TCP segment or UDP datagram, and compute the checksums of both headers."""
    return ip_packet(source, destination, protocol, with_checksum(source, destination, protocol, segment))


def icmp_packet(
    source: Address, destination: Address, message: bytes, *, traffic_class: int = 0, hops: int = HOPS
) -> bytes:
    """Build a packet with an ICMP message of the addresses' family, and compute the message's checksum."""
    protocol = ICMP_BY_VERSION[source.version]
    message = with_checksum(source, destination, protocol, message)
    return ip_packet(source, destination, protocol, message, traffic_class=traffic_class, hops=hops)


def with_hops(packet: bytes, hops: int) -> bytes:
    """Return the packet with another TTL (hop limit)."""
    if version_of(packet) == 6:
        return IPV6.replace(packet, hops=hops)
    size = ipv4_header_bytes(packet)
    return with_header_checksum(IPV4.replace(packet[:size], ttl=hops)) + packet[size:]


def ethernet_header(version: int) -> bytes:
    """Return an Ethernet header for IPv4 or IPv6, with zeros for addresses."""
    return ETHERNET.pack(type=ETHERTYPES[version])


def ethertype(link: bytes) -> int:
    """Return the Ethernet type of the packet behind a link header, which may have tags."""
    return int.from_bytes(link[-2:], "big")


def with_ethertype(link: bytes, version: int) -> bytes:
    """Return a link header, with its tags, for a packet of this IP version."""
    return link[:-2] + ETHERTYPES[version].to_bytes(2, "big")


def reversed_link(link: bytes) -> bytes:
    """Return the link header of an answer: back to the frame's sender, in the same VLAN."""
    ends = ETHERNET.unpack(link)
    return ETHERNET.replace(link, destination=ends.source, source=ends.destination)
