"""Parse: find the headers that forwarding needs.

This is the first step. It checks every bound: against the frame's end, for the kernel's verifier, and against the
lengths that the headers state. The later steps rely on it.

Headers at variable offsets (after VLAN tags, IPv4 options, IPv6 extension headers) are parsed only in user space: the
verifier would follow every possible offset. In the kernel ``is_plain`` is a constant, and such frames are punted.
"""

from collections import namedtuple

from lbmux.datapath.context import is_plain
from lbmux.datapath.frame import frame_length
from lbmux.datapath.headers import (
    FRAGMENTED,
    MORE_OR_OFFSET,
    TYPE_IPV4,
    TYPE_IPV6,
    TYPE_QINQ,
    TYPE_VLAN,
    ethernet,
    extension,
    ipv4,
    ipv6,
    tag,
    tcp,
    udp,
)
from lbmux.datapath.memory import advance, beyond, int64, step, swap16, u16, u32, u64
from lbmux.datapath.verdicts import Verdict
from lbmux.wire.header_layouts import (
    ETHERNET_BYTES,
    IPV4_BYTES,
    IPV6_BYTES,
    MOST_EXTENSIONS,
    MOST_TAGS,
    TAG_BYTES,
    TCP_BYTES,
    UDP_BYTES,
)
from lbmux.wire.numbers import (
    AUTHENTICATION,
    DESTINATION_OPTIONS,
    FRAGMENT_HEADER,
    HOP_BY_HOP,
    ICMP_PROTOCOL,
    ICMPV6_PROTOCOL,
    IPV4_WITHOUT_OPTIONS,
    ROUTING,
    TCP_PROTOCOL,
    UDP_PROTOCOL,
)

TRUNCATED, NOT_IP, VLAN = int(Verdict.TRUNCATED), int(Verdict.NOT_IP), int(Verdict.VLAN)
MALFORMED, OPTIONS, FRAGMENT = int(Verdict.MALFORMED), int(Verdict.OPTIONS), int(Verdict.FRAGMENT)
ICMP, PROTOCOL = int(Verdict.ICMP), int(Verdict.PROTOCOL)
PARSED = 0

Packet = namedtuple(
    "Packet",
    "verdict family source_high source_low destination_high destination_low ports protocol flags network transport",
)
"""``verdict`` is PARSED or the reason; ``family`` is 4 or 6; addresses are 128-bit halves, ports are as loaded,
``flags`` are TCP's; ``network`` and ``transport`` are the offsets of the IP header and the transport header."""

Headers = namedtuple("Headers", "verdict family protocol transport length")
"""An IP header with its options or extension headers: the transport header's offset, the whole packet's length."""


@step
def mapped(address):
    """Return the low half of an IPv4 address's mapped form (RFC 4291, section 2.5.5.2); the high half is zero."""
    return (u64(address) << u64(32)) | u64(0xFFFF0000)


@step
def unmapped(low):
    return u32(low >> u64(32))


@step
def _nothing(verdict):
    zero, none = u64(0), int64(0)
    return Packet(int64(verdict), none, zero, zero, zero, zero, u32(0), none, none, none, none)


@step
def _no_headers(verdict):
    return Headers(int64(verdict), int64(0), int64(0), int64(0), int64(0))


@step
def is_tag(kind):
    return kind == TYPE_VLAN or kind == TYPE_QINQ


@step
def network_offset(context, start, end):
    """Return (PARSED or the reason, the IP header's offset, its Ethernet type)."""
    if beyond(advance(start, ETHERNET_BYTES), end):
        return int64(TRUNCATED), int64(0), u16(0)
    offset, kind = int64(ETHERNET_BYTES), ethernet(start, 0).type
    if is_tag(kind):
        if is_plain(context):
            return int64(VLAN), int64(0), u16(0)
        for _ in range(MOST_TAGS):
            if is_tag(kind):
                if beyond(advance(start, offset + TAG_BYTES), end):
                    return int64(TRUNCATED), int64(0), u16(0)
                kind = tag(start, offset).type
                offset += TAG_BYTES
        if is_tag(kind):
            return int64(VLAN), int64(0), u16(0)
    return int64(PARSED), offset, kind


@step
def ipv4_headers(context, start, offset, end, bytes_left):
    """Parse the IPv4 header at ``offset``, with ``bytes_left`` bytes to the frame's end. Return Headers."""
    if beyond(advance(start, offset + IPV4_BYTES), end):
        return _no_headers(TRUNCATED)
    ip = ipv4(start, offset)
    size = int64(IPV4_BYTES)
    if ip.version_ihl != IPV4_WITHOUT_OPTIONS:
        if (ip.version_ihl >> 4) != 4 or (ip.version_ihl & 15) < 5:
            return _no_headers(MALFORMED)
        if is_plain(context):
            return _no_headers(OPTIONS)
        size = int64(ip.version_ihl & 15) * 4
        if beyond(advance(start, offset + size), end):
            return _no_headers(TRUNCATED)
    length = int64(swap16(ip.length))
    if length < size or length > bytes_left:
        return _no_headers(MALFORMED)
    verdict = PARSED if (ip.fragment & FRAGMENTED) == 0 else FRAGMENT
    return Headers(int64(verdict), int64(4), int64(ip.protocol), offset + size, length)


@step
def is_extension(protocol):
    options = protocol == HOP_BY_HOP or protocol == DESTINATION_OPTIONS or protocol == ROUTING
    return options or protocol == FRAGMENT_HEADER or protocol == AUTHENTICATION


@step
def ipv6_headers(context, start, offset, end, bytes_left):  # noqa: C901 -- compiled: one bounded loop for the verifier
    """Parse the IPv6 header at ``offset`` and up to MOST_EXTENSIONS extension headers (RFC 8200). Return Headers."""
    if beyond(advance(start, offset + IPV6_BYTES), end):
        return _no_headers(TRUNCATED)
    ip = ipv6(start, offset)
    length = int64(swap16(ip.length)) + IPV6_BYTES
    if (ip.version_class_label & u32(0xF0)) != u32(0x60) or length > bytes_left:
        return _no_headers(MALFORMED)
    protocol, transport, verdict = int64(ip.next), offset + IPV6_BYTES, int64(PARSED)
    if is_extension(protocol):
        if is_plain(context):
            return _no_headers(FRAGMENT if protocol == FRAGMENT_HEADER else OPTIONS)
        for _ in range(MOST_EXTENSIONS):
            if is_extension(protocol) and verdict == PARSED:
                if transport + 8 > offset + length:
                    return _no_headers(MALFORMED)
                if beyond(advance(start, transport + 8), end):
                    return _no_headers(TRUNCATED)
                follows = extension(start, transport)
                size = (int64(follows.length) + 1) * 8
                if protocol == FRAGMENT_HEADER:
                    size = int64(8)
                    if (follows.fragment & MORE_OR_OFFSET) != 0:
                        verdict = int64(FRAGMENT)
                elif protocol == AUTHENTICATION:
                    size = (int64(follows.length) + 2) * 4
                protocol, transport = int64(follows.next), transport + size
        if verdict == PARSED and is_extension(protocol):
            verdict = int64(OPTIONS)
        if transport > offset + length:
            return _no_headers(MALFORMED)
    return Headers(verdict, int64(6), protocol, transport, length)


@step
def headers_at(context, start, offset, end, bytes_left, kind):
    """Parse the IP header at ``offset``, of the family that the Ethernet type ``kind`` gives. Return Headers."""
    if kind == TYPE_IPV4:
        return ipv4_headers(context, start, offset, end, bytes_left)
    if kind == TYPE_IPV6:
        return ipv6_headers(context, start, offset, end, bytes_left)
    return _no_headers(NOT_IP)


@step
def parse(context, start, end):
    """Parse the TCP or UDP packet of a frame. Return a Packet."""
    verdict, offset, kind = network_offset(context, start, end)
    if verdict != PARSED:
        return _nothing(verdict)
    return parse_at(context, start, offset, end, frame_length(context) - offset, kind)


@step
def parse_at(context, start, offset, end, bytes_left, kind):
    """Parse the TCP or UDP packet whose IP header is at ``offset``, with ``bytes_left`` bytes to the frame's end.

    Return a Packet.
    """
    headers = headers_at(context, start, offset, end, bytes_left, kind)
    if headers.verdict != PARSED:
        return _nothing(headers.verdict)
    ports, flags, transport = u32(0), int64(0), headers.transport
    segment_bytes = offset + headers.length - transport
    if headers.protocol == TCP_PROTOCOL:
        if segment_bytes < TCP_BYTES:
            return _nothing(MALFORMED)
        if beyond(advance(start, transport + TCP_BYTES), end):
            return _nothing(TRUNCATED)
        ports, flags = tcp(start, transport).ports, int64(tcp(start, transport).flags)
    elif headers.protocol == UDP_PROTOCOL:
        if segment_bytes < UDP_BYTES:
            return _nothing(MALFORMED)
        if beyond(advance(start, transport + UDP_BYTES), end):
            return _nothing(TRUNCATED)
        ports = udp(start, transport).ports
    else:
        is_icmp = headers.protocol == (ICMP_PROTOCOL if headers.family == 4 else ICMPV6_PROTOCOL)
        return _nothing(ICMP if is_icmp else PROTOCOL)
    if headers.family == 4:  # not by ``kind``: the verifier does not remember the result of that comparison
        header = ipv4(start, offset)
        return Packet(
            int64(PARSED), int64(4), u64(0), mapped(header.source), u64(0), mapped(header.destination), ports,
            headers.protocol, flags, offset, transport,
        )  # fmt: skip
    ip = ipv6(start, offset)
    return Packet(
        int64(PARSED), int64(6), ip.source_high, ip.source_low, ip.destination_high, ip.destination_low, ports,
        headers.protocol, flags, offset, transport,
    )  # fmt: skip


@step
def destination_port(ports):
    return u16(ports >> u32(16))


@step
def source_port(ports):
    return u16(ports & u32(0xFFFF))
