"""The choice of a packet's backend: by its connection id, else by its flow's entry, else by its Maglev slot.

``choose`` has the order. A slot has a backend and, while it is changing, a base: docs/flow-state.md has the rule.
"""

from lbmux.datapath.context import backend_limit, backends, slot_limit, slots, traffic
from lbmux.datapath.counters import count_lookup
from lbmux.datapath.flow_lookup import flow_hash, is_alive, is_of, lookup, set_target, target_of
from lbmux.datapath.flows import remember, still_good
from lbmux.datapath.hashing import murmur3, murmur3_wide, scale
from lbmux.datapath.memory import int64, step, u32, u64, unlikely
from lbmux.datapath.parse import unmapped
from lbmux.datapath.quic import named_server
from lbmux.datapath.tables import (
    BY_BASE,
    BY_SERVER_ID,
    FORMER_TABLE,
    GONE,
    HASH_DESTINATION,
    HASH_SOURCE,
    NO_BASE,
    NONE,
    TICK_SHIFT,
    TRACK_ALL,
    TRACK_NONE,
    backend_row,
    entry_row,
    slot_row,
    traffic_row,
)
from lbmux.wire.numbers import SYN, TCP_PROTOCOL

SYN_GRACE = 3 * 1_000_000_000 >> TICK_SHIFT
"""Ticks after a change in which SYNs go to the base of a changed slot: the connection may have begun there, and this
may be a retransmission, after 1 s or 3 s (RFC 6298)."""


@step
def slot_hash(service, packet):
    """Hash the fields that the service selects: all five, or fewer so that more flows of a client stay together."""
    source_high, source_low = packet.source_high, packet.source_low
    destination_high, destination_low = packet.destination_high, packet.destination_low
    if unlikely(service.hashed != u32(HASH_SOURCE | HASH_DESTINATION)):
        source_mask = u64(0) - u64((service.hashed & u32(HASH_SOURCE)) != 0)
        destination_mask = u64(0) - u64((service.hashed & u32(HASH_DESTINATION)) != 0)
        source_high, source_low = source_high & source_mask, source_low & source_mask
        destination_high, destination_low = destination_high & destination_mask, destination_low & destination_mask
    ports, protocol = u32(packet.ports & service.port_mask), u32(packet.protocol)
    if packet.family == 4:
        return murmur3(service.seed, unmapped(source_low), unmapped(destination_low), ports, protocol)
    return murmur3_wide(service.seed, source_high, source_low, destination_high, destination_low, ports, protocol)


@step
def select(context, service, packet):
    """Return the backend of the packet's Maglev slot, or -1."""
    backend, _ = slot_pair(context, service, packet)
    return backend


@step
def slot_pair(context, service, packet):
    """Return (backend, base) of the packet's Maglev slot, or (-1, -1). They differ if the slot has changed.

    A service has no table while none of its backends takes new flows. Its former table still gives the backends of
    its flows; once that table is dropped, only their entries do.
    """
    if service.size == 0:
        return int64(-1), int64(-1) if service.tracking == TRACK_ALL else int64(FORMER_TABLE)
    return pair_at(context, service.slots, service.size, slot_hash(service, packet))


@step
def pair_at(context, first, size, hashed):
    """Return (backend, base) of the slot of ``hashed`` in the Maglev table that begins at ``first``, or (-1, -1)."""
    slot = int64(first) + scale(hashed, size)
    if slot >= slot_limit(context):
        return int64(-1), int64(-1)
    row = slot_row(slots(context), slot)
    backend = int64(row.backend)
    return (backend, int64(row.base)) if backend < backend_limit(context) else (int64(-1), int64(-1))


@step
def flow_backend(context, setting, worker, hashed, packet, index, service, now, named):
    """Return the backend of the packet's flow, or -1. A backend ``named`` by a connection id replaces the flow's."""
    bucket, way, word = lookup(context, hashed, packet.source_high, packet.source_low, packet.ports, index)
    if way < 0:
        return int64(-1)
    if unlikely(named >= 0 and named < backend_limit(context)):
        word = set_target(bucket, way, word, named, backend_row(backends(context), named).generation)
    target = target_of(word)
    if target >= backend_limit(context):
        return int64(-1)
    if service.tracking != TRACK_ALL and (packet.flags & SYN) == 0:
        entry_row(bucket, way).seen = now  # an entry that is idle for too long still knows more than the slot's base
    backend = backend_row(backends(context), target)
    is_usable = still_good(context, setting, worker, hashed, bucket, way, word, backend, service, packet.flags, now)
    return target if is_usable else int64(-1)


@step
def known_backend(context, hashed, packet, index, service, now):
    """Return the backend of the packet's flow, or -1. Its entry is not changed."""
    bucket, way, word = lookup(context, hashed, packet.source_high, packet.source_low, packet.ports, index)
    target = target_of(word)
    if way < 0 or target >= backend_limit(context):
        return int64(-1)
    backend = backend_row(backends(context), target)
    return target if is_alive(word, entry_row(bucket, way), backend, service, now) else int64(-1)


@step
def base_of(context, service, packet, base):
    """Return the backend of a changed slot's flows without an entry, or -1 if that is the slot's own backend.

    After a change of the table's size the base is that of the slot in the former table.
    """
    if base == FORMER_TABLE:
        if service.former == NONE:
            return int64(-1)
        backend, base = pair_at(context, service.former, service.former_size, slot_hash(service, packet))
        if base == NO_BASE or base == FORMER_TABLE:
            base = backend
    return if_in_use(context, base)


@step
def without_entry(context, worker, service, packet, now):
    """Return the backend of a packet whose flow has no entry, or -1.

    Every flow that began since its slot changed has an entry. A flow without one therefore began before and is at the
    base, however many changes came since. A SYN begins a flow, or is a retransmission for a while. A datagram may
    begin a flow or not: it goes to the base until a flow of that time would have been idle for too long.
    """
    target, base = slot_pair(context, service, packet)
    if target == base:
        return target
    before, age = base_of(context, service, packet, base), u32(now - service.changed)
    is_syn, is_tcp = (packet.flags & SYN) != 0, packet.protocol == TCP_PROTOCOL
    if service.tracking == TRACK_ALL:
        is_new = is_syn or not is_tcp  # another mux may have had a connection in progress
    elif is_tcp:
        is_new = is_syn and age > u32(SYN_GRACE)
    else:
        is_new = age > service.idle_trusted
    if before < 0 or is_new:
        return int64(target)
    count_lookup(context, worker, BY_BASE)
    return before


@step
def if_in_use(context, backend):
    """Return the backend, or -1 if it is not in use."""
    if backend < 0 or backend >= backend_limit(context) or backend_row(backends(context), backend).state == GONE:
        return int64(-1)
    return int64(backend)


@step
def tracked(context, setting, worker, packet, index, service, now, named):
    """Return the backend of a packet whose flow is looked up. A flow without an entry gets one."""
    hashed = flow_hash(setting, packet.source_high, packet.source_low, packet.ports, packet.destination_low)
    target = flow_backend(context, setting, worker, hashed, packet, index, service, now, named)
    if target >= 0:
        return target
    target = named if named >= 0 else without_entry(context, worker, service, packet, now)
    if target < 0:
        return target
    traffic_row(traffic(context), worker * backend_limit(context) + target).flows += u64(1)
    word = remember(
        context, setting, worker, hashed, packet.source_high, packet.source_low, packet.ports, index,
        target, backend_row(backends(context), target).generation, service, now,
    )  # fmt: skip
    return agreed(context, word, target)


@step
def agreed(context, word, target):
    """Return ``target``, or the backend that another CPU has just entered for the flow. ``word``: its entry's."""
    other = target_of(word)
    if unlikely(other != target and word != u64(0) and other < backend_limit(context)):
        return other if is_of(word, backend_row(backends(context), other)) else int64(target)
    return int64(target)


@step
def untracked(context, worker, packet, target):
    """Count a new TCP connection that gets no entry. Return its backend."""
    if target >= 0 and (packet.flags & SYN) != 0:
        traffic_row(traffic(context), worker * backend_limit(context) + target).flows += u64(1)
    return target


@step
def choose(context, setting, worker, start, end, packet, index, service, now):
    """Return the backend of a packet: by its connection id, else by its flow entry, else by its slot.

    The flow of a steady slot needs no entry, unless the service tracks all flows. Return -1 if there is no backend.
    """
    named = if_in_use(context, named_server(context, setting, start, end, packet, index, service))
    if unlikely(named >= 0):
        count_lookup(context, worker, BY_SERVER_ID)
    if service.tracking != TRACK_ALL:
        target, base = slot_pair(context, service, packet)
        if not unlikely(target != base) or service.tracking == TRACK_NONE:
            return untracked(context, worker, packet, named if named >= 0 else target)
    return tracked(context, setting, worker, packet, index, service, now, named)
