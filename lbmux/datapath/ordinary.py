"""The ordinary packet: IPv4 without options or IPv6 without extension headers, whole, TCP or UDP, untagged, sent on by
IP in IP of its own family.

Nearly all packets are ordinary, so ``mux.run`` has a path of its own for them in the kernel: ``mux.steady_backend``,
``mux.established_backend`` and ``mux.send_ordinary``. Offsets are constants there, and fields are read from the frame
when they are needed: registers are few, and what does not fit into them is written to the stack and read again. Other
packets take the general path, with the service or the backend if they were found; nothing has been changed until then.
"""

from lbmux.datapath.checksums import fold_wide
from lbmux.datapath.encapsulate import TTL, decrement_ipv4_ttl, type_at, write_ethernet
from lbmux.datapath.frame import UNFINISHED_CHECKSUM, frame, frame_end, frame_flags, grow
from lbmux.datapath.headers import DONT_FRAGMENT, FRAGMENTED, TYPE_IPV4, TYPE_IPV6, ethernet, ipv4, ipv6, tcp
from lbmux.datapath.memory import advance, beyond, header, int64, layout, step, swap16, u8, u16, u32, u64, unlikely
from lbmux.datapath.parse import PARSED, Packet, mapped, unmapped
from lbmux.datapath.tables import IPIP, OUTER_IPV6
from lbmux.wire.header_layouts import ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES, TCP_BYTES
from lbmux.wire.numbers import IPIP_PROTOCOL, IPV4_WITHOUT_OPTIONS, IPV6_PROTOCOL, SYN, TCP_PROTOCOL, UDP_PROTOCOL

TRANSPORT = ETHERNET_BYTES + IPV4_BYTES
ipv4_words = header(layout(("first", "u4"), ("second", "u4"), ("third", "u4"), ("source", "u4"), ("destination", "u4")))
"""An IPv4 header in words as loaded: version, TOS and length; identification and fragment; TTL, protocol, checksum."""
TRANSPORT6 = ETHERNET_BYTES + IPV6_BYTES
HEADERS_BYTES, HEADERS6_BYTES = TRANSPORT + TCP_BYTES, TRANSPORT6 + TCP_BYTES
"""Shorter frames are not ordinary, even if they have all of a UDP packet."""


@step
def is_ordinary(context, start, end, length):
    """Return whether a frame of ``length`` bytes has an ordinary packet that may travel on."""
    if beyond(advance(start, int64(HEADERS_BYTES)), end) or (frame_flags(context) & UNFINISHED_CHECKSUM) != 0:
        return False
    ip = ipv4(start, ETHERNET_BYTES)
    if ethernet(start, 0).type != TYPE_IPV4 or ip.version_ihl != IPV4_WITHOUT_OPTIONS:
        return False
    if (ip.fragment & FRAGMENTED) != 0 or ip.ttl <= 1:
        return False
    claimed = int64(swap16(ip.length))
    if claimed < IPV4_BYTES + TCP_BYTES or claimed > length - ETHERNET_BYTES:
        return False
    return not unlikely(ip.protocol != TCP_PROTOCOL) or ip.protocol == UDP_PROTOCOL


@step
def is_ordinary6(context, start, end, length):
    """Return whether a frame of ``length`` bytes has an ordinary IPv6 packet that may travel on."""
    if beyond(advance(start, int64(HEADERS6_BYTES)), end) or (frame_flags(context) & UNFINISHED_CHECKSUM) != 0:
        return False
    ip = ipv6(start, ETHERNET_BYTES)
    if ethernet(start, 0).type != TYPE_IPV6 or (ip.version_class_label & u32(0xF0)) != u32(0x60) or ip.hops <= 1:
        return False
    payload = int64(swap16(ip.length))
    if payload < TCP_BYTES or payload > length - TRANSPORT6:
        return False
    return not unlikely(ip.next != TCP_PROTOCOL) or ip.next == UDP_PROTOCOL


@step
def ordinary_packet(start):
    """Return the fields of an ordinary packet. A datagram has no flags."""
    ip, segment = ipv4(start, ETHERNET_BYTES), tcp(start, TRANSPORT)
    flags = int64(segment.flags) if ip.protocol == TCP_PROTOCOL else int64(0)
    return Packet(
        int64(PARSED), int64(4), u64(0), mapped(ip.source), u64(0), mapped(ip.destination), segment.ports,
        int64(ip.protocol), flags, int64(ETHERNET_BYTES), int64(TRANSPORT),
    )  # fmt: skip


@step
def ordinary_packet6(start):
    """Return the fields of an ordinary IPv6 packet. A datagram has no flags."""
    ip, segment = ipv6(start, ETHERNET_BYTES), tcp(start, TRANSPORT6)
    flags = int64(segment.flags) if ip.next == TCP_PROTOCOL else int64(0)
    return Packet(
        int64(PARSED), int64(6), ip.source_high, ip.source_low, ip.destination_high, ip.destination_low, segment.ports,
        int64(ip.next), flags, int64(ETHERNET_BYTES), int64(TRANSPORT6),
    )  # fmt: skip


@step
def is_syn(start):
    return (tcp(start, TRANSPORT).flags & SYN) != 0 and ipv4(start, ETHERNET_BYTES).protocol == TCP_PROTOCOL


@step
def is_syn6(start):
    return (tcp(start, TRANSPORT6).flags & SYN) != 0 and ipv6(start, ETHERNET_BYTES).next == TCP_PROTOCOL


@step
def outer_length(start):
    return int64(swap16(ipv4(start, ETHERNET_BYTES).length)) + IPV4_BYTES


@step
def outer_length6(start):
    return int64(swap16(ipv6(start, ETHERNET_BYTES).length)) + 2 * IPV6_BYTES


@step
def fits_ipip(start, backend):
    """Return whether a backend gets packets by IP in IP, and this one fits."""
    return backend.tunnel == IPIP and outer_length(start) <= int64(backend.mtu) and backend.destination_mac != u64(0)


@step
def fits_ipip6(start, backend):
    """Return whether a backend gets packets by IP in IPv6, and this one fits."""
    fits = outer_length6(start) <= int64(backend.mtu) and backend.destination_mac != u64(0)
    return backend.tunnel == IPIP | OUTER_IPV6 and fits


@step
def encapsulate_ordinary(context, backend, length):
    """Do for an ordinary packet what ``encapsulate`` does: ``length`` is then the outer packet's.

    Return the interface that it leaves by. Without headroom return -1 and change nothing.
    """
    if not grow(context, int64(IPV4_BYTES)):
        return int64(-1)
    start = frame(context)
    if beyond(advance(start, int64(TRANSPORT + IPV4_BYTES)), frame_end(context)):
        return int64(-1)
    interface = int64(backend.interface)
    decrement_ipv4_ttl(start, int64(TRANSPORT))
    write_ethernet(start, backend.source_mac, backend.destination_mac)
    type_at(start, int64(ETHERNET_BYTES - 2)).value = TYPE_IPV4
    outer, inner = ipv4_words(start, int64(ETHERNET_BYTES)), ipv4_words(start, int64(TRANSPORT))
    first = (inner.first & u32(0xFFFF)) | u32(u32(swap16(u16(length))) << u32(16))
    second = inner.second & u32(0xFFFF | DONT_FRAGMENT << 16)
    outer.first, outer.second = first, second
    outer.source, outer.destination = unmapped(backend.local_low), unmapped(backend.remote_low)
    total = u64(first) + u64(second) + u64(IPIP_PROTOCOL << 8) + u64(backend.checksum)
    outer.third = u32(TTL | IPIP_PROTOCOL << 8) | u32(u32(u16(~fold_wide(total))) << u32(16))
    return interface


@step
def encapsulate_ordinary6(context, backend, length):
    """Do for an ordinary IPv6 packet what ``encapsulate_ordinary`` does. The outer header gets the first word of the
    inner one: version, traffic class and flow label."""
    if not grow(context, int64(IPV6_BYTES)):
        return int64(-1)
    start = frame(context)
    if beyond(advance(start, int64(TRANSPORT6 + IPV6_BYTES)), frame_end(context)):
        return int64(-1)
    interface = int64(backend.interface)
    write_ethernet(start, backend.source_mac, backend.destination_mac)
    type_at(start, int64(ETHERNET_BYTES - 2)).value = TYPE_IPV6
    outer, inner = ipv6(start, int64(ETHERNET_BYTES)), ipv6(start, int64(TRANSPORT6))
    inner.hops = u8(inner.hops - 1)
    outer.version_class_label, outer.length = inner.version_class_label, swap16(u16(length - IPV6_BYTES))
    outer.next, outer.hops = u8(IPV6_PROTOCOL), u8(TTL)
    outer.source_high, outer.source_low = backend.local_high, backend.local_low
    outer.destination_high, outer.destination_low = backend.remote_high, backend.remote_low
    return interface
