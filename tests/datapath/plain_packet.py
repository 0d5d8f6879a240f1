"""Frames by struct and slices: checks, translation and checksums, slow and obvious.

Checksums are computed from scratch.  One that was wrong before stays wrong by as much, as RFC 1624 has it.
"""

import struct
from typing import NamedTuple

from lbmux.datapath.verdicts import Verdict

ICMP, IPIP, TCP, UDP, IPV6, GRE, ICMPV6 = 1, 4, 6, 17, 41, 47, 58
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS = 0, 43, 44, 51, 60
EXTENSIONS = (HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS)
TYPE_IPV4, TYPE_IPV6, TAGS = 0x0800, 0x86DD, (0x8100, 0x88A8)
CHECKSUM_AT = {TCP: 16, UDP: 6}  # in the transport header
LEAST = {TCP: 20, UDP: 8}


class Packet(NamedTuple):
    """``network``, ``transport`` and ``end``: where in the frame they begin, and it ends."""

    source: bytes
    destination: bytes
    protocol: int
    ports: bytes
    flags: int
    network: int = 14
    transport: int = 34
    end: int = 0

    @property
    def is_ipv6(self) -> bool:
        return len(self.source) == 16

    @property
    def is_rejectable(self) -> bool:
        """Whether a mux without backends answers it: a datagram, or a SYN without ACK."""
        return self.protocol != 6 or self.flags & 0x12 == 0x02


class Headers(NamedTuple):
    protocol: int
    transport: int
    end: int


def sum16(data: bytes) -> int:
    """RFC 1071: the one's complement sum of big-endian words."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def checksum(data: bytes) -> int:
    return 0xFFFF - sum16(data)


def ethernet(frame: bytes, plain: bool = False) -> tuple[int, int] | Verdict:
    """(where the IP header begins, Ethernet type there), or why there is none."""
    if len(frame) < 14:
        return Verdict.TRUNCATED
    offset, kind = 14, struct.unpack("!H", frame[12:14])[0]
    while kind in TAGS:
        if plain or offset == 22:
            return Verdict.VLAN
        if len(frame) < offset + 4:
            return Verdict.TRUNCATED
        kind = struct.unpack("!H", frame[offset + 2 : offset + 4])[0]
        offset += 4
    return offset, kind


def ip_headers(frame: bytes, offset: int, end: int, kind: int, plain: bool = False) -> Headers | Verdict:
    """The IP header at ``offset`` of a packet that ends by ``end``, and what belongs to it."""
    if kind == TYPE_IPV4:
        return _ipv4(frame, offset, end, plain)
    return _ipv6(frame, offset, end, plain) if kind == TYPE_IPV6 else Verdict.NOT_IP


def _ipv4(frame: bytes, offset: int, end: int, plain: bool) -> Headers | Verdict:
    if len(frame) < offset + 20:
        return Verdict.TRUNCATED
    version, words = frame[offset] >> 4, frame[offset] & 15
    if version != 4 or words < 5:
        return Verdict.MALFORMED
    if words > 5 and plain:
        return Verdict.OPTIONS
    if len(frame) < offset + 4 * words:
        return Verdict.TRUNCATED
    length, fragment = struct.unpack("!HxxH", frame[offset + 2 : offset + 8])
    if not 4 * words <= length <= end - offset:
        return Verdict.MALFORMED
    if fragment & 0x3FFF:  # more fragments, or an offset
        return Verdict.FRAGMENT
    return Headers(frame[offset + 9], offset + 4 * words, offset + length)


def _ipv6(  # noqa: C901 -- one decision a line, as in RFC 8200
    frame: bytes, offset: int, end: int, plain: bool
) -> Headers | Verdict:
    if len(frame) < offset + 40:
        return Verdict.TRUNCATED
    over, protocol, at = offset + 40 + struct.unpack("!H", frame[offset + 4 : offset + 6])[0], frame[offset + 6], 40
    if frame[offset] >> 4 != 6 or over > end:
        return Verdict.MALFORMED
    at = offset + 40
    if protocol in EXTENSIONS and plain:
        return Verdict.FRAGMENT if protocol == FRAGMENT else Verdict.OPTIONS
    for _ in range(8):
        if protocol not in EXTENSIONS:
            break
        if at + 8 > over:
            return Verdict.MALFORMED
        if at + 8 > len(frame):
            return Verdict.TRUNCATED
        size = 8 * (frame[at + 1] + 1)
        if protocol == AUTHENTICATION:
            size = 4 * (frame[at + 1] + 2)
        if protocol == FRAGMENT:
            size = 8
            if struct.unpack("!H", frame[at + 2 : at + 4])[0] & 0xFFF9:
                return Verdict.FRAGMENT if at + 8 <= over else Verdict.MALFORMED
        protocol, at = frame[at], at + size
    if at > over:
        return Verdict.MALFORMED
    return Verdict.OPTIONS if protocol in EXTENSIONS else Headers(protocol, at, over)


def parse(frame: bytes, plain: bool = False) -> Packet | Verdict:
    """The TCP or UDP packet of a frame, or why it is none."""
    header = ethernet(frame, plain)
    return header if isinstance(header, Verdict) else parse_at(frame, header[0], len(frame), header[1], plain)


def parse_at(frame: bytes, offset: int, end: int, kind: int, plain: bool = False) -> Packet | Verdict:
    """The TCP or UDP packet at ``offset`` that ends by ``end``."""
    headers = ip_headers(frame, offset, end, kind, plain)
    if isinstance(headers, Verdict):
        return headers
    protocol, transport, over = headers
    if protocol not in LEAST:
        return Verdict.ICMP if protocol == (ICMP if kind == TYPE_IPV4 else ICMPV6) else Verdict.PROTOCOL
    if over - transport < LEAST[protocol]:
        return Verdict.MALFORMED
    if len(frame) < transport + LEAST[protocol]:
        return Verdict.TRUNCATED
    source, destination = addresses_at(frame, offset, kind)
    flags = frame[transport + 13] if protocol == TCP else 0
    return Packet(
        source, destination, protocol, frame[transport : transport + 4], flags, offset, transport, over
    )  # fmt: skip


def addresses_at(frame: bytes, offset: int, kind: int) -> tuple[bytes, bytes]:
    at, size = (12, 4) if kind == TYPE_IPV4 else (8, 16)
    return frame[offset + at : offset + at + size], frame[offset + at + size : offset + at + 2 * size]


def put(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def decrement_ttl(frame: bytes, packet: Packet) -> bytes:
    """One hop less; a header checksum that was wrong stays wrong by as much."""
    at = packet.network + (7 if packet.is_ipv6 else 8)
    after = put(frame, at, bytes([frame[at] - 1]))
    return after if packet.is_ipv6 else header_checked(frame, after, packet.network)


def header_checked(before: bytes, after: bytes, network: int) -> bytes:
    was = struct.unpack("!H", before[network + 10 : network + 12])[0]
    value = still_wrong(header_checksum(after[network:]), header_checksum(before[network:]), was)
    return put(after, network + 10, struct.pack("!H", value))


def finish_checksum(frame: bytes, packet: Packet) -> bytes:
    """The transport checksum of a frame in whose checksum field the pseudo header's sum stands."""
    value = checksum(frame[packet.transport : packet.end])
    if packet.protocol == UDP and value == 0:
        value = 0xFFFF
    return put(frame, packet.transport + CHECKSUM_AT[packet.protocol], struct.pack("!H", value))


def pseudo_header(packet: Packet) -> bytes:
    length = packet.end - packet.transport
    return packet.source + packet.destination + struct.pack("!II", length, packet.protocol)


def transport_checksum(frame: bytes, packet: Packet) -> int:
    """Compute the transport checksum from scratch."""
    at, segment = CHECKSUM_AT[packet.protocol], frame[packet.transport : packet.end]
    return checksum(pseudo_header(packet) + put(segment, at, b"\0\0"))


def header_checksum(packet: bytes) -> int:
    """Compute the checksum of an IPv4 header with its options."""
    return checksum(packet[:10] + b"\0\0" + packet[12 : 4 * (packet[0] & 15)])


def still_wrong(right_after: int, right_before: int, was: int) -> int:
    return (right_after + was - right_before) % 0xFFFF


def translate(frame: bytes, packet: Packet, address: bytes, port: int, to: str) -> bytes:
    """The frame with another address and port as its ``source`` or ``destination``."""
    size, is_source = len(address), to == "source"
    at = packet.network + (8 if packet.is_ipv6 else 12) + (0 if is_source else size)
    after = put(frame, at, address)
    after = put(after, packet.transport + (0 if is_source else 2), struct.pack("!H", port))
    if not packet.is_ipv6:
        after = header_checked(frame, after, packet.network)
    changed = packet._replace(**{to: address})
    at = packet.transport + CHECKSUM_AT[packet.protocol]
    was = struct.unpack("!H", frame[at : at + 2])[0]
    if packet.protocol == TCP or was != 0:
        value = still_wrong(transport_checksum(after, changed), transport_checksum(frame, packet), was)
        if packet.protocol == UDP and value == 0:
            value = 0xFFFF
        after = put(after, at, struct.pack("!H", value))
    return after


def a_hop_on(frame: bytes) -> bytes:
    """The IP packet of a frame, after it has taken a hop."""
    packet = parse(frame)
    assert isinstance(packet, Packet)
    return decrement_ttl(frame, packet)[packet.network :]
