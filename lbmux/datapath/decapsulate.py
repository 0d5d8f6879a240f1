"""Decapsulate: remove the outer headers, so that the inner packet follows the Ethernet header again.

This is the first step at a host. It handles every kind of tunnel that a mux makes (lbmux.datapath.encapsulate) and
recognises the kind by the packet's headers. The outer header's ECN marks are combined with the inner ones (RFC 6040,
section 4.2).
"""

from collections import namedtuple

from lbmux.datapath.checksums import replace
from lbmux.datapath.context import is_plain
from lbmux.datapath.encapsulate import type_at, write_ethernet
from lbmux.datapath.frame import frame, frame_end, frame_length, grow
from lbmux.datapath.headers import GENEVE, GRE, GUE, TYPE_IPV4, TYPE_IPV6, ethernet, geneve, gre, gue, ipv4, ipv6, udp
from lbmux.datapath.match import match
from lbmux.datapath.memory import advance, beyond, int64, step, swap32, u16, u32, u64
from lbmux.datapath.parse import PARSED, destination_port, headers_at, mapped, network_offset
from lbmux.datapath.quic import byte
from lbmux.datapath.tables import ENTROPY_MUX, MUX, TUNNEL_ADDRESS
from lbmux.datapath.verdicts import Verdict
from lbmux.wire.header_layouts import ETHERNET_BYTES, UDP_BYTES
from lbmux.wire.numbers import GRE_PROTOCOL, IPIP_PROTOCOL, IPV6_PROTOCOL, UDP_PROTOCOL

NOT_TUNNELLED, NOT_A_MUX, FRAGMENT = int(Verdict.NOT_TUNNELLED), int(Verdict.NOT_A_MUX), int(Verdict.FRAGMENT)
GRE_BYTES, GUE_BYTES, GENEVE_BYTES = GRE.itemsize, GUE.itemsize, GENEVE.itemsize
NOT_ECT, ECT1, ECT0, CE = range(4)
WITHOUT_HASH = 0x0000FFFFFFFFFFFF
"""A mask of an address's lower half without its last two bytes, where a mux may put the flow's hash."""
NO_TYPE = 0

Tunnel = namedtuple("Tunnel", "verdict offset type bytes_left ecn")
"""``verdict`` is PARSED or the reason; ``offset`` is where the inner packet begins, ``type`` its Ethernet type,
``bytes_left`` the bytes from there to the outer packet's end, and ``ecn`` the outer header's ECN bits."""
Shim = namedtuple("Shim", "offset type")


@step
def no_tunnel(verdict):
    return Tunnel(int64(verdict), int64(0), u16(0), int64(0), int64(0))


@step
def no_shim():
    return Shim(int64(0), u16(NO_TYPE))


@step
def type_of(protocol):
    """Return the Ethernet type of the packet that an IP header with this protocol carries, or NO_TYPE."""
    if protocol == IPIP_PROTOCOL:
        return u16(TYPE_IPV4)
    return u16(TYPE_IPV6) if protocol == IPV6_PROTOCOL else u16(NO_TYPE)


@step
def under_gre(start, at, end):
    if beyond(advance(start, at + GRE_BYTES), end):
        return no_shim()
    shim = gre(start, at)
    if shim.flags_version != 0:
        return no_shim()
    return Shim(at + GRE_BYTES, shim.protocol)


@step
def under_udp(context, setting, start, at, end):
    if beyond(advance(start, at + UDP_BYTES + GUE_BYTES), end):
        return no_shim()
    port, inside = destination_port(udp(start, at).ports), at + UDP_BYTES
    if port == setting.gue_port:
        first = byte(start, inside).value
        if (first >> 6) == 1:  # variant 1: the IP packet's own version
            return Shim(inside, u16(TYPE_IPV4) if (first >> 4) == 4 else u16(TYPE_IPV6))
        shim = gue(start, inside)
        more = int64(shim.version_length & 31) * 4
        if (shim.version_length >> 5) != 0 or (more != 0 and is_plain(context)):
            return no_shim()
        return Shim(inside + GUE_BYTES + more, type_of(int64(shim.protocol)))
    if port == setting.geneve_port:
        if beyond(advance(start, inside + GENEVE_BYTES), end):
            return no_shim()
        shim8 = geneve(start, inside)
        more = int64(shim8.version_length & 63) * 4
        if (shim8.version_length >> 6) != 0 or (more != 0 and is_plain(context)):
            return no_shim()
        return Shim(inside + GENEVE_BYTES + more, shim8.protocol)
    return no_shim()


@step
def open_tunnel(context, setting, start, end):
    """Find the inner packet of a frame that a mux tunnelled to this host."""
    verdict, network, kind = network_offset(context, start, end)
    if verdict != PARSED:
        return no_tunnel(verdict)
    outer = headers_at(context, start, network, end, frame_length(context) - network, kind)
    if outer.verdict != PARSED:
        return no_tunnel(NOT_TUNNELLED if outer.verdict == FRAGMENT else outer.verdict)
    shim = Shim(outer.transport, type_of(outer.protocol))
    if outer.protocol == GRE_PROTOCOL:
        shim = under_gre(start, outer.transport, end)
    elif outer.protocol == UDP_PROTOCOL:
        shim = under_udp(context, setting, start, outer.transport, end)
    if shim.type != TYPE_IPV4 and shim.type != TYPE_IPV6:
        return no_tunnel(NOT_TUNNELLED)
    if outer.family == 4:
        ip = ipv4(start, network)
        source_high, source_low, own_high, own_low = u64(0), mapped(ip.source), u64(0), mapped(ip.destination)
        tos = int64(ip.tos)
    else:
        ip6 = ipv6(start, network)
        source_high, source_low = ip6.source_high, ip6.source_low
        own_high, own_low = ip6.destination_high, ip6.destination_low
        tos = int64(swap32(ip6.version_class_label) >> u32(20))
    if match(context, setting, TUNNEL_ADDRESS, own_high, own_low, u16(0), int64(0)) < 0:
        return no_tunnel(NOT_TUNNELLED)
    if not is_mux(context, setting, source_high, source_low):
        return no_tunnel(NOT_A_MUX)
    bytes_left = network + outer.length - shim.offset
    return Tunnel(int64(PARSED), shim.offset, shim.type, bytes_left, tos & 3)


@step
def is_mux(context, setting, high, low):
    if match(context, setting, MUX, high, low, u16(0), int64(0)) >= 0:
        return True
    if setting.entropy_muxes == 0:
        return False
    return match(context, setting, ENTROPY_MUX, high, low & u64(WITHOUT_HASH), u16(0), int64(0)) >= 0


@step
def combine_ecn(start, packet, outer):
    """Set the inner packet's ECN bits from both headers (RFC 6040). Return False if the packet must be dropped."""
    if packet.family == 4:
        ip = ipv4(start, packet.network)
        before, inner = ip.tos, int64(ip.tos & 3)
    else:
        ip6 = ipv6(start, packet.network)
        before, inner = u16(0), int64((swap32(ip6.version_class_label) >> u32(20)) & u32(3))
    if outer == CE and inner == NOT_ECT:
        return False
    after = inner
    if outer == CE:
        after = int64(CE)
    elif outer == ECT1 and inner == ECT0:
        after = int64(ECT1)
    if after != inner:
        if packet.family == 4:
            ip = ipv4(start, packet.network)
            ip.tos = (ip.tos & 0xFC) | after
            ip.checksum = replace(ip.checksum, u32(before) << u32(8), u32(ip.tos) << u32(8))
        else:
            ip6 = ipv6(start, packet.network)
            first = swap32(ip6.version_class_label)
            ip6.version_class_label = swap32(u32((first & u32(0xFFCFFFFF)) | u32(u32(after) << u32(20))))
    return True


@step
def decapsulate(context, start, tunnel):
    """Remove everything before the inner packet, including VLAN tags. Return False if the frame cannot shrink."""
    eth = ethernet(start, 0)
    destination = u64(eth.destination_low) | (u64(eth.destination_high) << u64(32))
    source = u64(eth.source_high) | (u64(u32(eth.source_low)) << u64(16))
    if not grow(context, ETHERNET_BYTES - tunnel.offset):
        return False
    start = frame(context)
    if beyond(advance(start, ETHERNET_BYTES), frame_end(context)):
        return False
    write_ethernet(start, source, destination)
    type_at(start, ETHERNET_BYTES - 2).value = tunnel.type
    return True
