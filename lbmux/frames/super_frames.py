"""Segmentation of super-frames into the frames that a wire would have carried, in compiled code, as a ring reads them.

A sender on the same machine (a veth, a virtio guest) passes TCP and UDP in frames of up to 64 KiB and leaves their
segmentation to a device (TSO, UDP GSO). A receiver that merges frames (GRO) produces the same. No tunnel can carry a
super-frame, and no packet socket can send one inside a tunnel: for a virtio_net_hdr the kernel accepts only plain TCP
or UDP.

Each frame gets the super-frame's headers and a piece of its payload, with lengths, identification, sequence numbers,
flags and checksums as in the kernel's tcp_gso_segment and __udp_gso_segment. The lengths in an outer tunnel header,
which another balancer may have added, are corrected too.
"""

from numba import types

from lbmux.datapath.checksums import fold, sum_of
from lbmux.datapath.headers import TYPE_IPV4, TYPE_IPV6, ethernet, ipv4, ipv6, tag, tcp, udp
from lbmux.datapath.memory import (
    Pointer,
    advance,
    at_address,
    int64,
    layout,
    rows,
    step,
    swap16,
    swap32,
    u8,
    u16,
    u32,
    u64,
)
from lbmux.datapath.parse import is_extension, is_tag
from lbmux.frames.batch import HEADROOM_BYTES
from lbmux.wire.header_layouts import ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES, MOST_TAGS, TAG_BYTES, UDP_BYTES
from lbmux.wire.numbers import FIN, IPV4_WITHOUT_OPTIONS, TCP_PROTOCOL, UDP_PROTOCOL

VNET = layout(
    ("flags", "u1"), ("kind", "u1"), ("header_bytes", "u2"), ("size", "u2"), ("checksum_start", "u2"),
    ("checksum_offset", "u2"),
)  # fmt: skip
"""struct virtio_net_hdr: ``kind`` and ``size`` define the segments, ``checksum_start`` is the transport header."""
VNET_BYTES = VNET.itemsize
NEEDS_CHECKSUM, ECN = 1, 0x80
TCP_OVER_IPV4, TCP_OVER_IPV6, UDP_DATAGRAMS = 1, 4, 5
PUSH, CONGESTION_REDUCED = 0x08, 0x80

SUPER = layout(
    ("frame", "u8"), ("length", "i8"), ("size", "i8"), ("protocol", "i8"), ("network", "i8"), ("inner", "i8"),
    ("transport", "i8"), ("payload", "i8"), ("next", "i8"), ("number", "i8"), ("used", "i8"), ("taken", "i8"),
    ("split", "i8"), ("lost", "i8"), ("arrived", "i8"),
)  # fmt: skip
"""The open super-frame: its address, payload bytes per segment (``size``, 0: none is open), the offsets of its headers
(``inner``: of the IP header inside a tunnel, or -1), the next payload byte, and the number of the next segment.
``used``: bytes of the arena in use; ``taken``: ring slots that were read completely; totals: ``split``, ``lost``."""
WHOLE_BYTES, ARENA_BYTES = 1 << 17, 1 << 19
"""The buffer for one super-frame, and the arena for the segments in a batch."""

vnet_row, super_row = rows(VNET), rows(SUPER)
memcpy = types.ExternalFunction("memcpy", types.voidptr(Pointer, Pointer, types.uint64))


@step
def open_super(record, start, length, flags, kind, size, checksum_start):
    """Open a super-frame. Return False if its headers cannot be parsed. ``checksum_start`` is relative to ``start``."""
    frame = at_address(start)
    network, kind_at = int64(ETHERNET_BYTES), ethernet(frame, 0).type
    for _ in range(MOST_TAGS):
        if is_tag(kind_at):
            kind_at, network = tag(frame, network).type, network + TAG_BYTES
    if length < network + IPV6_BYTES or size == 0 or (kind_at != TYPE_IPV4 and kind_at != TYPE_IPV6):
        return False
    behind = network + IPV6_BYTES
    if kind_at == TYPE_IPV4:
        behind = network + int64(ipv4(frame, network).version_ihl & 15) * 4
    transport = checksum_start if (flags & NEEDS_CHECKSUM) != 0 else behind
    is_udp = (kind & ~ECN) == UDP_DATAGRAMS
    if length < transport + (UDP_BYTES if is_udp else 20) or transport < behind:
        return False
    record.inner = inner_header(frame, length, transport) if transport != behind else int64(-1)
    has_extensions = kind_at == TYPE_IPV6 and is_extension(ipv6(frame, network).next)
    if transport != behind and record.inner < behind and not has_extensions:
        return False
    header_bytes = UDP_BYTES if is_udp else int64(tcp(frame, transport).offset >> 4) * 4
    record.frame, record.length, record.size = start, length, size
    record.protocol = UDP_PROTOCOL if is_udp else TCP_PROTOCOL
    record.network, record.transport = network, transport
    record.payload = record.next = transport + header_bytes
    record.number = 0
    if record.payload >= length:
        record.size = 0
        return False
    return True


@step
def inner_header(frame, length, transport):
    """Return the offset of the IP header directly before the transport header, if its packet fills the frame, or -1."""
    at = transport - IPV4_BYTES
    if ipv4(frame, at).version_ihl == IPV4_WITHOUT_OPTIONS and int64(swap16(ipv4(frame, at).length)) == length - at:
        return at
    at = transport - IPV6_BYTES
    if at < ETHERNET_BYTES or (ipv6(frame, at).version_class_label & u32(0xF0)) != u32(0x60):
        return int64(-1)
    return at if int64(swap16(ipv6(frame, at).length)) + IPV6_BYTES == length - at else int64(-1)


@step
def place_for(record, arena, length):
    """Allocate a frame of this length, with headroom, in the arena. Return its address, or 0 if the arena is full."""
    size_bytes = (HEADROOM_BYTES + length + 63) & ~63
    if record.used + size_bytes > ARENA_BYTES:
        return u64(0)
    start = arena + u64(record.used + HEADROOM_BYTES)
    record.used += size_bytes
    return start


@step
def keep(record, arena, frame, length):
    """Copy a whole frame into the arena. Return its address, or 0."""
    start = place_for(record, arena, length)
    if start != u64(0):
        memcpy(at_address(start), at_address(frame), u64(length))
    return start


@step
def cut(record, arena):
    """Write the next segment into the arena. Return (address, length), or zeros if the arena is full."""
    piece = min(record.size, record.length - record.next)
    length = record.payload + piece
    start = place_for(record, arena, length)
    if start == u64(0):
        return u64(0), int64(0)
    memcpy(at_address(start), at_address(record.frame), u64(record.payload))
    memcpy(at_address(start + u64(record.payload)), at_address(record.frame + u64(record.next)), u64(piece))
    frame, is_last = at_address(start), record.next + piece >= record.length
    fix_network(frame, record.network, length, record.number)
    network = record.network
    if record.inner >= 0:
        fix_tunnel(frame, record.network, record.inner, length)
        fix_network(frame, record.inner, length, record.number)
        network = record.inner
    if record.protocol == TCP_PROTOCOL:
        fix_tcp(frame, record, network, length, is_last)
    else:
        fix_udp(frame, record, network, length)
    record.next, record.number = record.next + piece, record.number + 1
    if is_last:
        record.size = 0
    return start, length


@step
def is_ipv4(frame, network):
    return (ipv4(frame, network).version_ihl >> 4) == 4


@step
def fix_network(frame, network, length, number):
    """Set an IP header's length, identification and checksum."""
    if is_ipv4(frame, network):
        ip = ipv4(frame, network)
        ip.length = swap16(u16(length - network))
        ip.identification = swap16(u16(int64(swap16(ip.identification)) + number))
        ip.checksum = u16(0)
        ip.checksum = u16(~sum_of(advance(frame, network), int64(ip.version_ihl & 15) * 4))
    else:
        ipv6(frame, network).length = swap16(u16(length - network - IPV6_BYTES))


@step
def fix_tunnel(frame, network, inner, length):
    """Set the length of a UDP header between two IP headers, and clear its checksum, which is optional (RFC 6935)."""
    at, protocol = network + IPV6_BYTES, int64(ipv6(frame, network).next)
    if is_ipv4(frame, network):
        ip = ipv4(frame, network)
        at, protocol = network + int64(ip.version_ihl & 15) * 4, int64(ip.protocol)
    if protocol == UDP_PROTOCOL and at + UDP_BYTES <= inner:
        head = udp(frame, at)
        head.length, head.checksum = swap16(u16(length - at)), u16(0)


@step
def transport_checksum(frame, network, transport, length, protocol):
    """Compute the checksum over the pseudo-header and the segment, whose checksum field is zero."""
    if is_ipv4(frame, network):
        addresses = sum_of(advance(frame, network + 12), int64(8))
    else:
        addresses = sum_of(advance(frame, network + 8), int64(32))
    total = u32(addresses) + u32(swap16(u16(protocol))) + u32(swap16(u16(length - transport)))
    return u16(~fold(u32(total + u32(sum_of(advance(frame, transport), length - transport)))))


@step
def fix_tcp(frame, record, network, length, is_last):
    segment = tcp(frame, record.transport)
    segment.sequence = swap32(u32(int64(swap32(segment.sequence)) + record.next - record.payload))
    if not is_last:
        segment.flags = u8(segment.flags & ~(FIN | PUSH))
    if record.number != 0:
        segment.flags = u8(segment.flags & ~CONGESTION_REDUCED)
    segment.checksum = u16(0)
    segment.checksum = transport_checksum(frame, network, record.transport, length, TCP_PROTOCOL)


@step
def fix_udp(frame, record, network, length):
    """Set a datagram's length and checksum. A datagram without a checksum stays without one."""
    datagram = udp(frame, record.transport)
    datagram.length = swap16(u16(length - record.transport))
    if datagram.checksum != 0:
        datagram.checksum = u16(0)
        checksum = transport_checksum(frame, network, record.transport, length, UDP_PROTOCOL)
        datagram.checksum = checksum if checksum != 0 else u16(0xFFFF)
