"""Translate: VIP and port to DIP and port for inbound packets, and back for replies (RFC 3022).

Checksums are updated by the difference (RFC 1624). At tc egress a transport checksum may still be unfinished, so the
kernel's helper updates it there: this is the only step with two bodies.
"""

from numba.extending import overload

from lbmux.datapath.checksums import replace, replace_wide
from lbmux.datapath.frame import frame, frame_end, replace_transport_checksum
from lbmux.datapath.headers import TCP, UDP, ipv4, ipv6, tcp, udp
from lbmux.datapath.memory import STEP_OPTIONS, advance, beyond, header, int64, layout, step, swap16, u16, u32, u64
from lbmux.datapath.parse import unmapped
from lbmux.wire.header_layouts import IPV6_BYTES, TCP_BYTES
from lbmux.wire.numbers import TCP_PROTOCOL

TCP_CHECKSUM, UDP_CHECKSUM = TCP.fields["checksum"][1], UDP.fields["checksum"][1]  # type: ignore[index]
"""Offsets in the transport header."""
PSEUDO_HEADER, ZERO_IS_NONE = 0x10, 0x20  # flags of bpf_l4_csum_replace, with the size of what is replaced
FOUR_BYTES = 4


def fix_transport(context, start, packet, before_high, before_low, after_high, after_low, ports):
    """Update the transport checksum after an address (part of the pseudo-header) and the ports have changed."""
    raise NotImplementedError("compiled code only")


@step
def _replaced(checksum, packet, before_high, before_low, after_high, after_low, ports):
    """Return the updated checksum. An IPv4 address is the upper half of ``low``; the rest does not change."""
    if packet.family == 4:
        checksum = replace(checksum, unmapped(before_low), unmapped(after_low))
    else:
        checksum = replace_wide(replace_wide(checksum, before_high, after_high), before_low, after_low)
    return replace(checksum, packet.ports, ports)


@step
def _in_place(context, start, packet, before_high, before_low, after_high, after_low, ports):
    """Update the checksum in the frame. A UDP checksum of zero stays: it means no checksum (RFC 768)."""
    if packet.protocol == TCP_PROTOCOL:
        segment = tcp(start, packet.transport)
        segment.checksum = _replaced(segment.checksum, packet, before_high, before_low, after_high, after_low, ports)
        return
    datagram = udp(start, packet.transport)
    if datagram.checksum != 0:
        checksum = _replaced(datagram.checksum, packet, before_high, before_low, after_high, after_low, ports)
        datagram.checksum = checksum if checksum != 0 else u16(0xFFFF)


@step
def _by_kernel(context, start, packet, before_high, before_low, after_high, after_low, ports):
    offset, flags = packet.transport + int64(TCP_CHECKSUM), u64(FOUR_BYTES)
    if packet.protocol != TCP_PROTOCOL:
        offset, flags = packet.transport + int64(UDP_CHECKSUM), u64(FOUR_BYTES | ZERO_IS_NONE)
    address_flags = flags | u64(PSEUDO_HEADER)
    if packet.family != 4:
        replace_transport_checksum(context, offset, u32(before_high), u32(after_high), address_flags)
        before, after = u32(before_high >> u64(32)), u32(after_high >> u64(32))
        replace_transport_checksum(context, offset, before, after, address_flags)
        replace_transport_checksum(context, offset, u32(before_low), u32(after_low), address_flags)
    replace_transport_checksum(context, offset, unmapped(before_low), unmapped(after_low), address_flags)
    replace_transport_checksum(context, offset, packet.ports, ports, flags)


@overload(fix_transport, jit_options=STEP_OPTIONS)
def _fix_transport(context, start, packet, before_high, before_low, after_high, after_low, ports):
    chosen = _by_kernel if context.target == "tc" else _in_place

    def body(context, start, packet, before_high, before_low, after_high, after_low, ports):
        chosen(context, start, packet, before_high, before_low, after_high, after_low, ports)

    return body


@step
def set_ports(start, packet, ports):
    if packet.protocol == TCP_PROTOCOL:
        tcp(start, packet.transport).ports = ports
    else:
        udp(start, packet.transport).ports = ports


@step
def translate_destination(context, start, packet, high, low, port):
    """Replace the packet's destination address (128-bit halves) and port, both as loaded."""
    if packet.family == 4:
        ip = ipv4(start, packet.network)
        ip.destination = unmapped(low)
        ip.checksum = replace(ip.checksum, unmapped(packet.destination_low), unmapped(low))
    else:
        ip6 = ipv6(start, packet.network)
        ip6.destination_high, ip6.destination_low = high, low
    ports = u32((packet.ports & u32(0x0000FFFF)) | u32(u32(port) << u32(16)))
    set_ports(start, packet, ports)
    fix_transport(context, start, packet, packet.destination_high, packet.destination_low, high, low, ports)


@step
def translate_source(context, start, packet, high, low, port):
    """Replace the reply's source address (128-bit halves) and port, both as loaded."""
    if packet.family == 4:
        ip = ipv4(start, packet.network)
        ip.source = unmapped(low)
        ip.checksum = replace(ip.checksum, unmapped(packet.source_low), unmapped(low))
    else:
        ip6 = ipv6(start, packet.network)
        ip6.source_high, ip6.source_low = high, low
    ports = u32((packet.ports & u32(0xFFFF0000)) | u32(port))
    set_ports(start, packet, ports)
    fix_transport(context, start, packet, packet.source_high, packet.source_low, high, low, ports)


@step
def translate_both(context, start, packet, source_high, source_low, source, destination_high, destination_low, to):
    """Replace both addresses and both ports (``source``, ``to``), all as loaded.

    The kernel's checksum helpers are called last, because they make pointers into the packet stale.
    """
    if packet.family == 4:
        ip = ipv4(start, packet.network)
        ip.source, ip.destination = unmapped(source_low), unmapped(destination_low)
        checksum = replace(ip.checksum, unmapped(packet.source_low), unmapped(source_low))
        ip.checksum = replace(checksum, unmapped(packet.destination_low), unmapped(destination_low))
    else:
        ip6 = ipv6(start, packet.network)
        ip6.source_high, ip6.source_low = source_high, source_low
        ip6.destination_high, ip6.destination_low = destination_high, destination_low
    ports = u32(u32(source) | u32(u32(to) << u32(16)))
    set_ports(start, packet, ports)
    fix_transport(context, start, packet, packet.source_high, packet.source_low, source_high, source_low, ports)
    fix_transport(
        context, start, packet, packet.destination_high, packet.destination_low, destination_high, destination_low,
        packet.ports,
    )  # fmt: skip


MSS_OPTION, MSS_OPTION_BYTES = 2, 4
word_at = header(layout(("value", "u4")))


@step
def packet_end(start, packet):
    """Return the offset of the IP packet's end, which may be before the frame's end."""
    if packet.family == 4:
        return packet.network + int64(swap16(ipv4(start, packet.network).length))
    return packet.network + int64(swap16(ipv6(start, packet.network).length)) + IPV6_BYTES


def fix_word(context, start, packet, before, after):
    """Update the TCP checksum after 32 bits of the segment have changed."""
    raise NotImplementedError("compiled code only")


@step
def _word_in_place(context, start, packet, before, after):
    segment = tcp(start, packet.transport)
    segment.checksum = replace(segment.checksum, before, after)


@step
def _word_by_kernel(context, start, packet, before, after):
    replace_transport_checksum(context, packet.transport + int64(TCP_CHECKSUM), before, after, u64(FOUR_BYTES))


@overload(fix_word, jit_options=STEP_OPTIONS)
def _fix_word(context, start, packet, before, after):
    chosen = _word_by_kernel if context.target == "tc" else _word_in_place

    def body(context, start, packet, before, after):
        chosen(context, start, packet, before, after)

    return body


@step
def clamp_mss(context, packet, most):
    """Lower the MSS that a SYN-ACK offers. It must be the first option, as in every stack (RFC 9293, 3.7.1)."""
    start, at = frame(context), packet.transport + TCP_BYTES
    if packet.protocol != TCP_PROTOCOL or beyond(advance(start, at + MSS_OPTION_BYTES), frame_end(context)):
        return
    if (tcp(start, packet.transport).offset >> 4) * 4 < TCP_BYTES + MSS_OPTION_BYTES:
        return
    if at + MSS_OPTION_BYTES > packet_end(start, packet):
        return
    before = word_at(start, at).value
    if (before & u32(0xFFFF)) != u32(MSS_OPTION | MSS_OPTION_BYTES << 8) or swap16(u16(before >> u32(16))) <= most:
        return
    after = u32((before & u32(0xFFFF)) | u32(u32(swap16(u16(most))) << u32(16)))
    word_at(start, at).value = after
    fix_word(context, start, packet, before, after)
