"""The packet generator: a kernel program that assigns each frame to another flow and sends it.

It runs in live-frames mode (lbmux.targets.bpf.test_runs), which recycles frames as the program under test left them, so
it rewrites every header. A second program on the same interface counts and drops the frames that come back.
"""

from lbmux.datapath.checksums import fold
from lbmux.datapath.context import table, xdp_context
from lbmux.datapath.encapsulate import write_ethernet
from lbmux.datapath.frame import frame, frame_end, frame_length
from lbmux.datapath.headers import TYPE_IPV4, TYPE_IPV6, ethernet, ipv4, ipv6, tcp
from lbmux.datapath.memory import advance, beyond, int64, layout, rows, step, swap16, swap32, swap64, u16, u32, u64
from lbmux.targets.bpf.xdp_programs import XDP_DROP, XDP_TX
from lbmux.wire.header_layouts import ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES, TCP_BYTES
from lbmux.wire.numbers import TCP_PROTOCOL

PATTERN = layout(
    ("next", "u8"),
    ("flows", "u8"),
    ("destination_mac", "u8"),
    ("source_mac", "u8"),
    ("source", "u4"),
    ("destination", "u4"),
    ("destination_high", "u8"),
    ("destination_low", "u8"),
    ("port", "u2"),
    ("flags", "u2"),
    ("port_mask", "u4"),
    ("back", "u8"),
    ("back_bytes", "u8"),
)
"""One row: ``next`` is the number of the next flow, below ``flows``; ``source`` is the first of 65536 addresses, as a
value, the other fields are as in headers; an IPv6 destination has two. Each flow goes to one of ``port_mask`` + 1 ports
from ``port`` on. ``back`` counts frames that came back."""

pattern, pattern_row = table("pattern"), rows(PATTERN)
HEADERS_BYTES = ETHERNET_BYTES + IPV4_BYTES + TCP_BYTES
HEADERS6_BYTES = ETHERNET_BYTES + IPV6_BYTES + TCP_BYTES
SOURCE6_HIGH = int.from_bytes(bytes.fromhex("20010db800020000"), "little")
"""The first half of the IPv6 sources: 2001:db8:2::/64."""
CONSTANT_SUM = 0x4500 + (64 << 8 | TCP_PROTOCOL)


@step
def number(row):
    """Return the number of the next flow, in rotation."""
    index = row.next
    row.next = index + u64(1) if index + u64(1) < row.flows else u64(0)
    return index


@step
def scattered(index):
    """Permute the 32-bit numbers with MurmurHash3's finalizer, which is invertible.

    Consecutive flows would form a pattern in the flow table, and the figures would depend on its secret keys.
    """
    h = u32(index)
    h = u32(u32(h ^ u32(h >> u32(16))) * u32(0x85EBCA6B))
    h = u32(u32(h ^ u32(h >> u32(13))) * u32(0xC2B2AE35))
    return u32(h ^ u32(h >> u32(16)))


@step
def write_headers(start, row, flow, length):
    write_ethernet(start, row.source_mac, row.destination_mac)
    ethernet(start, 0).type = u16(TYPE_IPV4)  # a recycled frame still has its outer header
    ip, segment = ipv4(start, ETHERNET_BYTES), tcp(start, ETHERNET_BYTES + IPV4_BYTES)
    source = u32(row.source + u32(flow >> u32(16)))
    ip.version_ihl, ip.tos, ip.length, ip.identification, ip.fragment = 0x45, 0, swap16(u16(length)), 0, 0
    ip.ttl, ip.protocol, ip.source, ip.destination = 64, TCP_PROTOCOL, swap32(source), row.destination
    destination = swap32(row.destination)
    total = u32(CONSTANT_SUM) + u32(length) + u32(source >> u32(16)) + u32(source & u32(0xFFFF))
    total += u32(destination >> u32(16)) + u32(destination & u32(0xFFFF))
    ip.checksum = swap16(u16(~fold(total)))
    write_segment(segment, row, flow)


@step
def write_headers6(start, row, flow, length):
    write_ethernet(start, row.source_mac, row.destination_mac)
    ethernet(start, 0).type = u16(TYPE_IPV6)
    ip, segment = ipv6(start, ETHERNET_BYTES), tcp(start, ETHERNET_BYTES + IPV6_BYTES)
    ip.version_class_label, ip.length = 0x60, swap16(u16(length - int64(IPV6_BYTES)))
    ip.next, ip.hops = TCP_PROTOCOL, 64
    ip.source_high, ip.source_low = SOURCE6_HIGH, swap64(u64(flow >> u32(16)))
    ip.destination_high, ip.destination_low = row.destination_high, row.destination_low
    write_segment(segment, row, flow)


@step
def write_segment(segment, row, flow):
    port = swap16(u16(u32(swap16(row.port)) + u32(u32(flow >> u32(16)) & row.port_mask)))
    segment.ports = u32(u32(flow & u32(0xFFFF)) | u32(u32(port) << u32(16)))
    segment.sequence, segment.acknowledgement, segment.offset = 0, 0, 0x50
    segment.flags, segment.window, segment.checksum, segment.urgent = row.flags & 0xFF, 0xFFFF, 0, 0


def generate6(ctx):
    context = xdp_context(ctx)
    start = frame(context)
    if beyond(advance(start, HEADERS6_BYTES), frame_end(context)):
        return XDP_DROP
    row = pattern_row(pattern(context), 0)
    write_headers6(start, row, scattered(number(row)), frame_length(context) - int64(ETHERNET_BYTES))
    return XDP_TX


def generate(ctx):
    context = xdp_context(ctx)
    start = frame(context)
    if beyond(advance(start, HEADERS_BYTES), frame_end(context)):
        return XDP_DROP
    row = pattern_row(pattern(context), 0)
    write_headers(start, row, scattered(number(row)), frame_length(context) - int64(ETHERNET_BYTES))
    return XDP_TX


def sink(ctx):
    context = xdp_context(ctx)
    row = pattern_row(pattern(context), 0)
    row.back += u64(1)
    row.back_bytes += u64(frame_length(context))
    return XDP_DROP
