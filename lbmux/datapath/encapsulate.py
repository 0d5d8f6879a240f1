"""Encapsulate: put the packet into an outer header, addressed to the backend's host.

This is the last step at a mux: IP in IP of either family (RFC 2003, 2473, 4213), GRE (RFC 2784), GUE
(draft-ietf-intarea-gue), Geneve (RFC 8926), or no outer header if the host is on the same link. The inner TTL is
decremented. The outer header has a TTL of 64 and the inner packet's TOS with its ECN bits (RFC 6040), DF bit and
identification. The backend's row holds the sum of the outer IPv4 header's TTL and addresses, so the checksum needs only
a few additions.
"""

from collections import namedtuple

from lbmux.datapath.checksums import fold
from lbmux.datapath.context import is_plain
from lbmux.datapath.flow_lookup import flow_hash, second_hash
from lbmux.datapath.frame import frame, frame_end, grow
from lbmux.datapath.headers import (
    DONT_FRAGMENT,
    GENEVE,
    GUE,
    IPV4,
    TYPE_IPV4,
    TYPE_IPV6,
    as_loaded,
    ethernet,
    geneve,
    gre,
    gue,
    ipv4,
    ipv6,
    udp,
)
from lbmux.datapath.headers import GRE as GRE_HEADER
from lbmux.datapath.memory import (
    advance,
    beyond,
    header,
    int64,
    layout,
    step,
    swap16,
    swap32,
    u8,
    u16,
    u32,
    u64,
    unlikely,
)
from lbmux.datapath.parse import unmapped
from lbmux.datapath.tables import DIRECT, ENTROPY, GRE, GUE0, GUE1, IPIP, KIND_MASK, OUTER_IPV6
from lbmux.datapath.tables import GENEVE as GENEVE_KIND
from lbmux.datapath.verdicts import Verdict
from lbmux.wire.header_layouts import IPV4_BYTES, IPV6_BYTES, UDP_BYTES
from lbmux.wire.numbers import GRE_PROTOCOL, IPIP_PROTOCOL, IPV4_WITHOUT_OPTIONS, IPV6_PROTOCOL, UDP_PROTOCOL

FORWARDED, TOO_BIG, NO_HEADROOM = int(Verdict.FORWARDED), int(Verdict.TOO_BIG), int(Verdict.NO_HEADROOM)
NO_NEIGHBOUR = int(Verdict.NO_NEIGHBOUR)
TTL = 64
MACS_BYTES, TTL_AT = 12, IPV4.fields["ttl"][1]  # type: ignore[index]
DYNAMIC_PORTS = 0xC000
SHIM_BYTES = {
    IPIP: 0, GUE1: UDP_BYTES, GUE0: UDP_BYTES + GUE.itemsize, GRE: GRE_HEADER.itemsize,
    GENEVE_KIND: UDP_BYTES + GENEVE.itemsize,
}  # fmt: skip
"""Bytes between the outer IP header and the inner packet, by kind of tunnel."""
MOST_SHIM_BYTES = max(SHIM_BYTES.values())

type_at, word_at, wide_at = (header(layout(("value", kind))) for kind in ("u2", "u4", "u8"))

Inner = namedtuple("Inner", "length tos identification fragment label protocol type")
"""The packet's fields that the outer header needs: as loaded, except ``length`` and ``label`` (20 bits)."""


@step
def write_ethernet(start, source_mac, destination_mac):
    """Write both addresses of an Ethernet header, given as 48-bit numbers as loaded."""
    eth = ethernet(start, 0)
    wide_at(start, 0).value = destination_mac  # and two bytes of the source
    eth.source_high, eth.source_low = u16(source_mac), u32(source_mac >> u64(16))


@step
def remaining_ttl(start, packet):
    if packet.family == 4:
        return int64(ipv4(start, packet.network).ttl)
    return int64(ipv6(start, packet.network).hops)


@step
def decrement_ttl(start, packet):
    """Decrement the TTL (hop limit). This adds one to the first byte of the IPv4 checksum (RFC 1141)."""
    if packet.family == 4:
        decrement_ipv4_ttl(start, packet.network)
    else:
        ip6 = ipv6(start, packet.network)
        ip6.hops = u8(ip6.hops - 1)


@step
def decrement_ipv4_ttl(start, network):
    ip = word_at(start, network + TTL_AT)
    word = ip.value
    if unlikely(word >= u32(0xFFFE0000)):
        word += u32(0x10000)
    ip.value = u32(word + u32(0xFFFF))


@step
def ipv4_fields(start, network):
    ip = ipv4(start, network)
    return Inner(
        int64(swap16(ip.length)), u32(ip.tos), ip.identification, u16(ip.fragment & DONT_FRAGMENT), u32(0),
        u8(IPIP_PROTOCOL), u16(TYPE_IPV4),
    )  # fmt: skip


@step
def inner_fields(start, packet):
    if packet.family == 4:
        return ipv4_fields(start, packet.network)
    ip6 = ipv6(start, packet.network)
    first = swap32(ip6.version_class_label)
    return Inner(
        int64(swap16(ip6.length)) + IPV6_BYTES, u32((first >> u32(20)) & u32(0xFF)), u16(0), u16(DONT_FRAGMENT),
        u32(first & u32(0xFFFFF)), u8(IPV6_PROTOCOL), u16(TYPE_IPV6),
    )  # fmt: skip


@step
def entropy_of(setting, packet):
    """Return the flow's hash, which spreads flows over paths and receive queues on the way to the host."""
    hashed = flow_hash(setting, packet.source_high, packet.source_low, packet.ports, packet.destination_low)
    return second_hash(hashed)


@step
def outer_protocol(kind, inner):
    if kind == IPIP:
        return inner.protocol
    return u8(GRE_PROTOCOL) if kind == GRE else u8(UDP_PROTOCOL)


@step
def write_shim(setting, start, at, kind, inner, length, entropy):
    """Write the header between the outer IP header and the inner packet. ``length`` counts from it to the end."""
    if kind == GRE:
        shim = gre(start, at)
        shim.flags_version, shim.protocol = u16(0), inner.type
        return
    port = setting.geneve_port if kind == GENEVE_KIND else setting.gue_port
    head = udp(start, at)
    source = swap16(u16(u32(DYNAMIC_PORTS) | u32(entropy & u32(0x3FFF))))
    head.ports = u32(source) | u32(u32(port) << u32(16))
    head.length, head.checksum = swap16(u16(length)), u16(0)  # optional, RFC 6935
    if kind == GUE0:
        variant0 = gue(start, at + UDP_BYTES)
        variant0.version_length, variant0.protocol, variant0.flags = u8(0), inner.protocol, u16(0)
    elif kind == GENEVE_KIND:
        shim8 = geneve(start, at + UDP_BYTES)
        shim8.version_length, shim8.flags, shim8.protocol, shim8.network = u8(0), u8(0), inner.type, u32(0)


@step
def write_ipv4(start, at, backend, inner, kind, tunnel, length, entropy):
    outer = ipv4(start, at)
    protocol = outer_protocol(kind, inner)
    spread = u16(entropy) if (tunnel & ENTROPY) != 0 else u16(0)
    outer.version_ihl, outer.tos, outer.length = IPV4_WITHOUT_OPTIONS, u8(inner.tos), swap16(u16(length))
    outer.identification, outer.fragment = inner.identification, inner.fragment
    outer.ttl, outer.protocol = TTL, protocol
    outer.source, outer.destination = (
        u32(unmapped(backend.local_low) | u32(u32(spread) << u32(16))),
        unmapped(backend.remote_low),
    )
    variable = u32(IPV4_WITHOUT_OPTIONS) + u32(inner.tos << u32(8)) + u32(outer.length)
    variable += u32(inner.identification) + u32(inner.fragment) + u32(u32(protocol) << u32(8)) + u32(spread)
    outer.checksum = u16(~fold(u32(backend.checksum + variable)))


@step
def write_ipv6(start, at, backend, inner, kind, tunnel, length, entropy):
    """Write the outer IPv6 header with the inner traffic class and flow label. An IPv4 flow gets a label (RFC 6438)."""
    outer = ipv6(start, at)
    label = inner.label if inner.protocol == IPV6_PROTOCOL else u32(entropy & u32(0xFFFFF))
    spread = u64(entropy & u32(0xFFFF)) if (tunnel & ENTROPY) != 0 else u64(0)
    outer.version_class_label = swap32(u32(u32(0x60000000) | u32(inner.tos << u32(20)) | label))
    outer.length, outer.next, outer.hops = swap16(u16(length - IPV6_BYTES)), outer_protocol(kind, inner), TTL
    outer.source_high, outer.source_low = backend.local_high, u64(backend.local_low | u64(spread << u64(48)))
    outer.destination_high, outer.destination_low = backend.remote_high, backend.remote_low


@step
def encapsulate(context, setting, start, packet, backend):
    """Grow the frame and write the Ethernet and outer headers. Return (verdict, length of the outer packet)."""
    if packet.family != 4 and beyond(advance(start, packet.network + IPV6_BYTES), frame_end(context)):
        return NO_HEADROOM, int64(0)  # never happens; the verifier no longer knows the packet's family
    if not is_plain(context) and backend.tunnel == 0:
        return encapsulate_with(context, setting, start, packet, backend, int64(0), int64(IPV4_BYTES))
    return encapsulate_with(
        context, setting, start, packet, backend, int64(backend.tunnel), int64(backend.overhead_bytes)
    )


@step
def encapsulate_with(  # noqa: C901 -- compiled: one check of bounds for each way out
    context, setting, start, packet, backend, tunnel, overhead_bytes
):
    """Do the work of ``encapsulate``. ``tunnel`` and ``overhead_bytes`` are the backend's, as constants for IPIP."""
    inner, network = inner_fields(start, packet), packet.network
    kind = tunnel & KIND_MASK
    length = inner.length + overhead_bytes
    if unlikely(length > int64(backend.mtu)):
        return TOO_BIG, length
    destination_mac, source_mac = backend.destination_mac, backend.source_mac
    if unlikely(destination_mac == u64(0)):
        return NO_NEIGHBOUR, length
    decrement_ttl(start, packet)
    if kind == DIRECT:
        write_ethernet(start, source_mac, destination_mac)
        return FORWARDED, length
    entropy = entropy_of(setting, packet) if tunnel != 0 else u32(0)
    if unlikely(not grow(context, overhead_bytes)):
        return NO_HEADROOM, length
    start, end = frame(context), frame_end(context)
    if beyond(advance(start, network + IPV4_BYTES + MOST_SHIM_BYTES), end):
        return NO_HEADROOM, length
    if not is_plain(context):
        for at in range(MACS_BYTES, network - 2, 4):  # VLAN tags
            word_at(start, at).value = word_at(start, at + overhead_bytes).value
    write_ethernet(start, source_mac, destination_mac)
    if (tunnel & OUTER_IPV6) == 0:
        type_at(start, network - 2).value = u16(TYPE_IPV4)
        write_ipv4(start, network, backend, inner, kind, tunnel, length, entropy)
        if kind != IPIP:
            write_shim(setting, start, network + IPV4_BYTES, kind, inner, length - IPV4_BYTES, entropy)
        return FORWARDED, length
    if beyond(advance(start, network + IPV6_BYTES + MOST_SHIM_BYTES), end):
        return NO_HEADROOM, length
    type_at(start, network - 2).value = u16(TYPE_IPV6)
    write_ipv6(start, network, backend, inner, kind, tunnel, length, entropy)
    if kind != IPIP:
        write_shim(setting, start, network + IPV6_BYTES, kind, inner, length - IPV6_BYTES, entropy)
    return FORWARDED, length


def constant_sum(source: int, destination: int) -> int:
    """Return the sum of an outer IPv4 header's TTL and addresses (values), as loaded, for a backend's row."""
    words = (source >> 16, source & 0xFFFF, destination >> 16, destination & 0xFFFF, TTL << 8)
    return sum(map(as_loaded, words))


def overhead_bytes_of(kind: int, is_ipv6: bool) -> int:
    """Return how many bytes encapsulation adds to a packet."""
    return 0 if kind == DIRECT else (IPV6_BYTES if is_ipv6 else IPV4_BYTES) + SHIM_BYTES[kind]
