"""The choice of a packet's backend: by its connection id, else by its flow's entry, else by its Maglev slot.

``choose`` has the order. A slot has a backend and, while it is changing, a base: docs/flow-state.md has the rule.
"""

from lbmux.datapath.branchless import differs
from lbmux.datapath.context import backend_limit, backends, barrier, is_plain, slot_limit, slots, traffic, worker_limit
from lbmux.datapath.flows import count_lookup, flow_hash, is_alive, lookup, remember, still_good
from lbmux.datapath.hashing import murmur3, murmur3_wide, scale
from lbmux.datapath.memory import int64, step, u16, u32, u64, unlikely
from lbmux.datapath.parse import unmapped
from lbmux.datapath.quic import named_server
from lbmux.datapath.tables import (
    BY_BASE,
    BY_SERVER_ID,
    ELSEWHERE,
    FORMER_TABLE,
    GONE,
    HASH_DESTINATION,
    HASH_SOURCE,
    NO_BASE,
    NONE,
    TICK_SHIFT,
    TRACK_ALL,
    TRACK_NONE,
    WAYS,
    backend_row,
    flow_row,
    slot_row,
    traffic_row,
)
from lbmux.wire.numbers import SYN, TCP_PROTOCOL

PUNT = -2
KERNEL_TABLES = 4
"""How many CPUs' flow tables the kernel program searches itself."""
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

    A service that has lost its table, because no backend takes new flows, may still have flows: by its former table,
    and once that has been given up, in entries.
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
    bucket, way = lookup(context, worker, hashed, packet.source_high, packet.source_low, packet.ports, index)
    if way < 0:
        return int64(-1)
    flow = flow_row(bucket, way)
    if unlikely(named >= 0 and named < backend_limit(context)):
        flow.target, flow.generation = u16(named), backend_row(backends(context), named).generation
    target = int64(flow.target)
    if target >= backend_limit(context):
        return int64(-1)
    if service.tracking != TRACK_ALL and (packet.flags & SYN) == 0:
        flow.seen = now  # an entry that is idle for too long still knows more than the slot's base
    backend = backend_row(backends(context), target)
    good = still_good(context, setting, worker, worker, hashed, bucket, flow, backend, service, packet.flags, now)
    return target if good else int64(-1)


@step
def in_worker_table(context, table_worker, hashed, packet, index, service, now):
    """Return the backend of the packet's flow in another worker's table, or -1. That table is not changed."""
    bucket, way = lookup(context, table_worker, hashed, packet.source_high, packet.source_low, packet.ports, index)
    way = barrier(context, way, packet.source_low)  # otherwise the verifier follows every way of every table to the end
    flow = flow_row(bucket, way & (WAYS - 1))
    target = int64(flow.target)
    if way < 0 or target >= backend_limit(context):
        return int64(-1)
    return target if is_alive(flow, backend_row(backends(context), target), service, now) else int64(-1)


@step
def in_other_tables(context, worker, hashed, packet, index, service, now):
    """Return the backend of the packet's flow in another worker's table, or -1.

    The kernel program searches the last table, which is user space's, and those of KERNEL_TABLES CPUs; more would
    exceed the verifier's limits. User space searches for the rest and enters what it finds in the last table.
    """
    last = worker_limit(context) - 1
    target = in_worker_table(context, last, hashed, packet, index, service, now) if worker != last else int64(-1)
    most = KERNEL_TABLES if is_plain(context) else last
    for table_worker in range(min(most, last)):
        if target < 0 and differs(table_worker, worker) != u64(0):  # branchless: the verifier would fork for each CPU
            target = in_worker_table(context, table_worker, hashed, packet, index, service, now)
    return target


@step
def base_of(context, service, packet, base):
    """Return the backend of the flows of a changed slot that have no entry, or -1 if they are at the slot's backend.

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
def without_entry(context, worker, service, packet, target, base, now):
    """Return the backend of a packet in a changed slot whose flow has no entry. ``target`` is the slot's backend.

    Every flow that began since the slot changed has an entry. A flow without one therefore began before and is at the
    base, however many changes came since. A SYN begins a flow, or is a retransmission for a while. A datagram may
    begin a flow or not: it goes to the base until a flow of that time would have been idle for too long.
    """
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
    target = named if named >= 0 else not_in_own_table(context, worker, hashed, packet, index, service, now)
    if target < 0:
        return target
    traffic_row(traffic(context), worker * backend_limit(context) + target).flows += u64(1)
    remember(
        context, setting, worker, hashed, packet.source_high, packet.source_low, packet.ports, index,
        target, backend_row(backends(context), target).generation, service, now,
    )  # fmt: skip
    return target


@step
def not_in_own_table(context, worker, hashed, packet, index, service, now):
    """Return the backend of a packet whose flow this worker's table does not have, -1 or PUNT.

    Another worker may have the flow of a changed slot, since a flow may change its worker (its CPU) at any time.
    """
    target, base = slot_pair(context, service, packet)
    if target == base or (target < 0 and base_of(context, service, packet, base) < 0):
        return target
    if (packet.flags & SYN) == 0:
        before = in_other_tables(context, worker, hashed, packet, index, service, now)
        if before >= 0:
            count_lookup(context, worker, ELSEWHERE)
            return before
        if is_plain(context) and worker != worker_limit(context) - 1:
            return int64(PUNT)
    return without_entry(context, worker, service, packet, target, base, now)


@step
def untracked(context, worker, packet, target):
    """Count a new TCP connection that gets no entry. Return its backend."""
    if target >= 0 and (packet.flags & SYN) != 0:
        traffic_row(traffic(context), worker * backend_limit(context) + target).flows += u64(1)
    return target


@step
def choose(context, setting, worker, start, end, packet, index, service, now):
    """Return the backend of a packet: by its connection id, else by its flow entry, else by its slot.

    The flow of a steady slot needs no entry, unless the service tracks all flows. Return -1 if there is no backend,
    and PUNT if user space must search for the flow.
    """
    named = if_in_use(context, named_server(context, setting, start, end, packet, index, service))
    if unlikely(named >= 0):
        count_lookup(context, worker, BY_SERVER_ID)
    if service.tracking != TRACK_ALL:
        target, base = slot_pair(context, service, packet)
        if target == base or service.tracking == TRACK_NONE:
            return untracked(context, worker, packet, named if named >= 0 else target)
    return tracked(context, setting, worker, packet, index, service, now, named)
