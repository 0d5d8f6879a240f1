"""Merges consecutive TCP segments into one packet for the local stack, in compiled code, as a TUN device writes them.

The stack handles a packet of up to 64 KiB at nearly the cost of one segment (GRO). The rules are those of the kernel's
tcp_gro_receive: the segments are of one connection and follow each other without a gap. Their headers and options are
the same. They have no flag but ACK, and the last may have PSH. Their data have the same length, and the last may have
less. The kernel does not check a merged packet's checksum, so segments with a wrong checksum are not merged.
"""

from lbmux.datapath.checksums import fold, sum_of
from lbmux.datapath.frame import CUT, UNFINISHED_CHECKSUM
from lbmux.datapath.headers import DONT_FRAGMENT, TYPE_IPV4, TYPE_IPV6, ethernet, ipv4, ipv6, tcp
from lbmux.datapath.memory import advance, at_address, header, int64, layout, step, swap16, swap32, u8, u16, u32, u64
from lbmux.frames.super_frames import (
    NEEDS_CHECKSUM,
    PUSH,
    TCP_OVER_IPV4,
    TCP_OVER_IPV6,
    is_ipv4,
    memcpy,
    transport_checksum,
)
from lbmux.wire.header_layouts import ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES, TCP_BYTES
from lbmux.wire.numbers import ACK, IPV4_WITHOUT_OPTIONS, TCP_PROTOCOL

MOST_BYTES, MOST_SEGMENTS = 65535, 64
"""The length of the longest packet, and how many segments it may have."""
CHECKSUM_AT = 16
word_row = header(layout(("value", "u4")))


@step
def payload_of(frame, length, flags):
    """Return the offset of a TCP segment's data, or 0 for a frame that is not merged."""
    if (flags & (UNFINISHED_CHECKSUM | CUT)) != 0 or length < ETHERNET_BYTES + IPV4_BYTES + TCP_BYTES:
        return int64(0)
    kind, transport = ethernet(frame, 0).type, int64(ETHERNET_BYTES + IPV4_BYTES)
    if kind == TYPE_IPV4:
        ip = ipv4(frame, ETHERNET_BYTES)
        is_plain = ip.version_ihl == IPV4_WITHOUT_OPTIONS and ip.protocol == TCP_PROTOCOL
        is_plain &= ip.fragment == DONT_FRAGMENT and int64(swap16(ip.length)) == length - ETHERNET_BYTES
    else:
        transport = int64(ETHERNET_BYTES + IPV6_BYTES)
        is_plain = kind == TYPE_IPV6 and length >= transport + TCP_BYTES
        is_plain &= ipv6(frame, ETHERNET_BYTES).next == TCP_PROTOCOL
        is_plain &= int64(swap16(ipv6(frame, ETHERNET_BYTES).length)) == length - transport
    if not is_plain or (tcp(frame, transport).flags & u8(~PUSH)) != ACK:
        return int64(0)
    data = int64(tcp(frame, transport).offset >> 4) * 4
    return transport + data if data >= TCP_BYTES and transport + data < length else int64(0)


@step
def transport_of(frame):
    return int64(ETHERNET_BYTES + IPV4_BYTES) if is_ipv4(frame, ETHERNET_BYTES) else int64(ETHERNET_BYTES + IPV6_BYTES)


@step
def is_same_network(frame, other):
    """Return whether two IP headers are the same but for length, identification and checksum."""
    if ethernet(frame, 0).type != ethernet(other, 0).type:
        return False
    if ethernet(frame, 0).type == TYPE_IPV4:
        a, b = ipv4(frame, ETHERNET_BYTES), ipv4(other, ETHERNET_BYTES)
        return a.tos == b.tos and a.ttl == b.ttl and a.source == b.source and a.destination == b.destination
    c, d = ipv6(frame, ETHERNET_BYTES), ipv6(other, ETHERNET_BYTES)
    different = (c.source_high ^ d.source_high) | (c.source_low ^ d.source_low)
    different |= (c.destination_high ^ d.destination_high) | (c.destination_low ^ d.destination_low)
    return different == u64(0) and c.version_class_label == d.version_class_label and c.hops == d.hops


@step
def follows(frame, other, payload, data_bytes):
    """Return whether the segment in ``other`` continues the one in ``frame``, which has ``data_bytes`` of data.

    The data of both begin at ``payload``.
    """
    if not is_same_network(frame, other):
        return False
    transport = transport_of(frame)
    a, b = tcp(frame, transport), tcp(other, transport)
    if int64(u32(swap32(b.sequence) - swap32(a.sequence))) != data_bytes or a.ports != b.ports:
        return False
    different = (a.acknowledgement ^ b.acknowledgement) | u32(a.window ^ b.window) | u32(a.offset ^ b.offset)
    for index in range((payload - transport - TCP_BYTES) >> 2):
        at = transport + TCP_BYTES + 4 * index
        different |= word_row(frame, at).value ^ word_row(other, at).value
    return different == u32(0)


@step
def is_intact(frame, length):
    """Return whether a segment's checksum is right."""
    return transport_checksum(frame, ETHERNET_BYTES, transport_of(frame), length, TCP_PROTOCOL) == u16(0)


@step
def run_of(address, length, flags, verdict, first, count, least, below):
    """Return (how many frames from ``first`` on make one packet, the offset of their data)."""
    frame, payload = at_address(address[first]), payload_of(at_address(address[first]), length[first], flags[first])
    size, total, run = int64(length[first]) - payload, int64(length[first]) - ETHERNET_BYTES, 1
    if payload == 0:
        return 1, payload
    while first + run < count and run < MOST_SEGMENTS:
        before, index = at_address(address[first + run - 1]), first + run
        other, data_bytes = at_address(address[index]), int64(length[index]) - payload
        if not least <= verdict[index] < below or (tcp(before, transport_of(before)).flags & PUSH) != 0:
            break
        if payload_of(other, length[index], flags[index]) != payload or not follows(before, other, payload, size):
            break
        if data_bytes > size or total + data_bytes > MOST_BYTES or not is_intact(other, length[index]):
            break
        if run == 1 and not is_intact(frame, length[first]):
            break
        run, total = run + 1, total + data_bytes
        if data_bytes < size:
            break
    return run, payload


@step
def write_headers(into, first, last, payload, length):
    """Write the headers of the merged packet, whose frame has ``length`` bytes; its data begin at ``payload``.

    ``first`` and ``last`` are its segments' frames.
    """
    transport = transport_of(first)
    memcpy(into, first, u64(payload))
    segment = tcp(into, transport)
    segment.flags = u8(segment.flags | tcp(last, transport).flags)
    if is_ipv4(into, ETHERNET_BYTES):
        ip = ipv4(into, ETHERNET_BYTES)
        ip.length, ip.checksum = swap16(u16(length - ETHERNET_BYTES)), u16(0)
        ip.checksum = u16(~sum_of(advance(into, ETHERNET_BYTES), int64(IPV4_BYTES)))
        addresses = sum_of(advance(into, ETHERNET_BYTES + 12), int64(8))
    else:
        ipv6(into, ETHERNET_BYTES).length = swap16(u16(length - transport))
        addresses = sum_of(advance(into, ETHERNET_BYTES + 8), int64(32))
    # The kernel adds the rest if it needs it.
    segment.checksum = fold(u32(addresses) + u32(swap16(u16(TCP_PROTOCOL))) + u32(swap16(u16(length - transport))))


@step
def write_vnet(vnet, frame, payload, size):
    """Fill the virtio_net_hdr of a merged packet with ``size`` bytes of data in each segment."""
    vnet.flags, vnet.kind = u8(NEEDS_CHECKSUM), u8(TCP_OVER_IPV4 if is_ipv4(frame, ETHERNET_BYTES) else TCP_OVER_IPV6)
    vnet.header_bytes, vnet.size = u16(payload - ETHERNET_BYTES), u16(size)
    vnet.checksum_start, vnet.checksum_offset = u16(transport_of(frame) - ETHERNET_BYTES), u16(CHECKSUM_AT)
