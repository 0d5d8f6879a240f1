"""The gate: counts a mux's packets by VIP and drops those to a black hole, before the first step of the usual path.

It is open only while a mux is overloaded (lbmux.daemons.vip_gate), and costs nothing otherwise: in the kernel it is a
program of its own, which calls the mux's (lbmux.targets.bpf.xdp_programs). Any packet with a VIP as its destination
counts, whatever its protocol or port, and fragments too.

What it counts tells a crowd from a flood. Real clients send more than one packet of a flow, since they got an answer;
invented ones do not. So it samples one flow in 16, by hash, and enters its packets in the sketch of known sources
(lbmux.datapath.known_sources): a SYN under the flow's hash, others under that hash and LATER.
"""

from lbmux.datapath.atomics import atomic_add
from lbmux.datapath.context import clock, service_limit, settings, vips
from lbmux.datapath.flow_lookup import second_hash
from lbmux.datapath.hashing import keyed
from lbmux.datapath.headers import FRAGMENTED, TYPE_IPV4, TYPE_IPV6, ipv4, ipv6, tcp, udp
from lbmux.datapath.known_sources import enter_source, is_known
from lbmux.datapath.match import match
from lbmux.datapath.memory import advance, beyond, int64, layout, rows, step, u8, u16, u32, u64
from lbmux.datapath.parse import PARSED, mapped, network_offset
from lbmux.datapath.tables import SOURCE_BITS, SOURCE_BITS_AT, VIP_ADDRESS, VIP_USAGE, settings_row, vip_usage_row
from lbmux.wire.header_layouts import IPV4_BYTES, IPV6_BYTES, TCP_BYTES, UDP_BYTES
from lbmux.wire.numbers import ACK, IPV4_WITHOUT_OPTIONS, SYN, TCP_PROTOCOL, UDP_PROTOCOL

USAGE_BYTES = VIP_USAGE.itemsize
BEGINS_AT, JUDGED_AT, FOLLOWS_AT, DROPPED_AT, BEGUN_AT, COMPLETED_AT = (
    VIP_USAGE.fields[name][1]  # type: ignore[index]
    for name in ("begins", "judged", "follows", "dropped", "begun", "completed")
)
LATER = 0x005A5A5A
SAMPLED_SHIFT, SAMPLED = 28, 0
"""A flow is sampled if these bits of its hash, of 32, are SAMPLED: one in 16."""
UNFLAGGED = -1
NEVER_ENDS = 0x7FFFFFFF
"""A time is over if it is further ahead: the difference is unsigned."""
bits_row = rows(layout(("bits", "u1")))


@step
def is_black_holed(context, start, end):
    """Count a frame by its VIP, if it has one. Return whether the VIP is a black hole, so that it is to be dropped."""
    verdict, offset, kind = network_offset(context, start, end)
    if verdict != PARSED:
        return False
    if kind == TYPE_IPV4:
        if beyond(advance(start, offset + IPV4_BYTES), end):
            return False
        ip = ipv4(start, offset)
        is_whole = ip.version_ihl == IPV4_WITHOUT_OPTIONS and (ip.fragment & FRAGMENTED) == 0
        protocol, transport = (int64(ip.protocol) if is_whole else int64(0)), offset + IPV4_BYTES
        return counted(
            context, start, end, (u64(0), mapped(ip.source), u64(0), mapped(ip.destination)), protocol, transport
        )
    if kind == TYPE_IPV6:
        if beyond(advance(start, offset + IPV6_BYTES), end):
            return False
        ip6 = ipv6(start, offset)
        addresses = ip6.source_high, ip6.source_low, ip6.destination_high, ip6.destination_low
        return counted(context, start, end, addresses, int64(ip6.next), offset + IPV6_BYTES)
    return False


@step
def counted(context, start, end, addresses, protocol, transport):
    """Count a packet if it is to a VIP. Return whether that is a black hole. ``addresses``: source, destination."""
    source_high, source_low, destination_high, destination_low = addresses
    setting = settings_row(settings(context), 0)
    index = match(context, setting, VIP_ADDRESS, destination_high, destination_low, u16(0), 0)
    if index < 0 or index >= service_limit(context):
        return False
    usage = advance(vips(context), index * USAGE_BYTES)
    ports, flags = ports_and_flags(start, end, protocol, transport)
    atomic_add(usage, u64(1))
    note_source(usage, keyed(setting, u32(0), source_high, source_low, u32(0), u32(0)))
    hashed = keyed(setting, u32(1), source_high, source_low, ports, u32(index << 8 | protocol))
    now, until = clock(context), vip_usage_row(usage, 0).until
    if until != u32(0) and u32(until - now) <= u32(NEVER_ENDS):
        if flags >= 0 and (flags & (SYN | ACK)) == SYN:
            atomic_add(advance(usage, BEGINS_AT), u64(1))
        atomic_add(advance(usage, DROPPED_AT), u64(1))
        return True
    judge(context, usage, hashed, flags, now)
    return False


@step
def ports_and_flags(start, end, protocol, transport):
    """Return a packet's ports as loaded, and TCP's flags or UNFLAGGED."""
    if protocol == TCP_PROTOCOL and not beyond(advance(start, transport + TCP_BYTES), end):
        segment = tcp(start, transport)
        return segment.ports, int64(segment.flags)
    if protocol == UDP_PROTOCOL and not beyond(advance(start, transport + UDP_BYTES), end):
        return udp(start, transport).ports, int64(UNFLAGGED)
    return u32(0), int64(UNFLAGGED)


@step
def note_source(usage, hashed):
    """Set the bit of a source address. If another worker undoes that, the source's next packet sets it again."""
    bit = int64(second_hash(hashed)) & (SOURCE_BITS - 1)
    row = bits_row(advance(usage, int64(SOURCE_BITS_AT)), bit >> 3)
    row.bits = u8(row.bits | u8(1 << (bit & 7)))


@step
def judge(context, usage, hashed, flags, now):
    """Count whether a packet begins a connection, completes its begin, or follows an earlier packet of its flow."""
    is_sampled = (hashed >> u32(SAMPLED_SHIFT)) == u32(SAMPLED)
    if flags >= 0 and (flags & (SYN | ACK)) == SYN:
        atomic_add(advance(usage, BEGINS_AT), u64(1))
        if is_sampled:
            if not is_known(context, hashed, now):
                atomic_add(advance(usage, BEGUN_AT), u64(1))
            enter_source(context, hashed, now)
    elif is_sampled:
        later = u32(hashed ^ u32(LATER))
        has_begun, has_come = is_known(context, hashed, now), is_known(context, later, now)
        atomic_add(advance(usage, JUDGED_AT), u64(1))
        if has_begun or has_come:
            atomic_add(advance(usage, FOLLOWS_AT), u64(1))
        if has_begun and not has_come:
            atomic_add(advance(usage, COMPLETED_AT), u64(1))
        enter_source(context, later, now)
