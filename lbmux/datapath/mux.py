"""The mux: frame -> parse -> match the VIP -> access -> flow table -> (miss: Maglev slot) -> encapsulate -> frame.

The same functions run in user space and in the kernel. The order of the steps is in ``forward``, ``with_service``,
``to_backend`` and ``choose``: the slow path (lbmux.slowpath.flow_steps) and `lbmux explain` (lbmux.tools.dry_run) call
the same functions with other steps at their ends. In the kernel, ordinary packets take a shorter path first
(lbmux.datapath.ordinary); what it finds is what these functions would find.
"""

from lbmux.datapath.access import admit, allowed
from lbmux.datapath.branchless import differs
from lbmux.datapath.checksums import finish_checksum
from lbmux.datapath.context import (
    UNFINISHED_CHECKSUM,
    backend_limit,
    backends,
    barrier,
    clock,
    current_worker,
    frame,
    frame_end,
    frame_flags,
    frame_length,
    is_plain,
    service_limit,
    services,
    settings,
    slot_limit,
    slots,
    traffic,
    verdicts,
    worker_limit,
)
from lbmux.datapath.encapsulate import encapsulate, remaining_ttl
from lbmux.datapath.flows import count_lookup, flow_hash, is_alive, lookup, remember, still_good
from lbmux.datapath.hashing import murmur3, murmur3_wide, scale
from lbmux.datapath.match import match, match_service
from lbmux.datapath.memory import barrier_var, int64, reread, step, u16, u32, u64, unlikely
from lbmux.datapath.ordinary import (
    encapsulate_ordinary,
    fits_ipip,
    is_ordinary,
    is_syn,
    ordinary_packet,
    outer_length,
)
from lbmux.datapath.parse import PARSED, Packet, destination_port, parse, unmapped
from lbmux.datapath.quic import named_server
from lbmux.datapath.tables import (
    BY_BASE,
    BY_SERVER_ID,
    ELSEWHERE,
    FORMER_TABLE,
    GONE,
    HASH_DESTINATION,
    HASH_SOURCE,
    LIMITED,
    NO_BASE,
    NONE,
    TICK_SHIFT,
    TRACK_ALL,
    TRACK_NONE,
    VIP,
    WAYS,
    backend_row,
    count_row,
    flow_row,
    service_row,
    settings_row,
    slot_row,
    traffic_row,
)
from lbmux.datapath.verdicts import VERDICTS, Verdict
from lbmux.wire.header_layouts import ETHERNET_BYTES, IPV4_BYTES
from lbmux.wire.numbers import ACK, SYN, TCP_PROTOCOL

NOT_VIP, NO_BACKEND, OUT_OF_TABLE = int(Verdict.NOT_VIP), int(Verdict.NO_BACKEND), int(Verdict.OUT_OF_TABLE)
FORWARDED, DENIED, TTL = int(Verdict.FORWARDED), int(Verdict.DENIED), int(Verdict.TTL)
NO_HEADROOM = int(Verdict.NO_HEADROOM)
UNSETTLED, REJECT = int(Verdict.UNSETTLED), int(Verdict.REJECT)
PUNT = -2
KERNEL_TABLES = 4
"""How many CPUs' flow tables the kernel program searches itself."""
USUAL_TRANSPORT = ETHERNET_BYTES + IPV4_BYTES
SYN_GRACE = 3 * 1_000_000_000 >> TICK_SHIFT
"""Ticks after a change in which SYNs go to the base of a changed slot: the connection may have begun there, and this
may be a retransmission, after 1 s or 3 s (RFC 6298)."""


@step
def active_service(context, setting, index):
    """Return the row of a service, in the copy of the table that is in force."""
    return service_row(services(context), int64(setting.active & u32(1)) * service_limit(context) + index)


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
    way = barrier(context, way, packet.source_low)  # else the verifier follows every way of every table to the end
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
    if not admit(context, worker, index, service, now):
        count_lookup(context, worker, LIMITED)
        return target
    remember(
        context, setting, worker, hashed, packet.source_high, packet.source_low, packet.ports, index,
        target, backend_row(backends(context), target).generation, service, now,
    )  # fmt: skip
    traffic_row(traffic(context), worker * backend_limit(context) + target).flows += u64(1)
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


@step
def without_backend(context, worker, index, service, packet, now):
    """Return the verdict of a packet without a backend. The kernel punts a limited number for user space to reject.

    It drops mid-connection TCP packets, because their connection continues if a backend comes back. A service without
    slots enters no flows, so its rate bucket serves as the limit.
    """
    is_rejectable = packet.protocol != TCP_PROTOCOL or (packet.flags & (SYN | ACK)) == SYN
    if is_plain(context) and service.rejects != 0 and is_rejectable:
        return REJECT if admit(context, worker, index, service, now) else NO_BACKEND
    return NO_BACKEND


@step
def merge_verifier_paths(context, setting, packet):
    """Return the packet. From here on the verifier follows one path for IPv4, IPv6, TCP and UDP together."""
    family, flags = barrier(context, packet.family, setting.key0), barrier(context, packet.flags, setting.key0)
    protocol = barrier(context, packet.protocol, setting.key0)
    return Packet(
        packet.verdict, family, packet.source_high, packet.source_low, packet.destination_high, packet.destination_low,
        packet.ports, protocol, flags, packet.network, packet.transport,
    )  # fmt: skip


@step
def forward(context, worker, start, end, packet, found):
    """Process one frame. Return (verdict, backend or -1). ``found`` is as of ``steady_backend``."""
    if packet.verdict != PARSED:
        return packet.verdict, int64(-1)
    now = clock(context)
    if not is_plain(context) and packet.transport == USUAL_TRANSPORT:
        return forward_parsed(context, worker, now, start, end, at_usual_offsets(packet), found)
    return forward_parsed(context, worker, now, start, end, packet, found)


@step
def steady_backend(context, start):
    """Return the backend of an ordinary packet, if its slot is steady, its flow needs no entry and nothing else about
    its service has to be considered. Else return -2 less the service's index, if that is known, or -1.

    These are one number so that a single register has to be set before each jump away from the usual way.
    """
    setting, packet = settings_row(settings(context), 0), ordinary_packet(start)
    port = destination_port(packet.ports)
    index = match(context, setting, VIP, u64(0), packet.destination_low, port, packet.protocol)
    if index < 0 or index >= service_limit(context):
        return int64(-1)
    service = active_service(context, setting, index)
    if (service.rule_count | u32(service.quic_bytes) | u32(service.tracking & TRACK_ALL)) != u32(0):
        return int64(-2) - index
    target, base = slot_pair(context, service, ordinary_packet(reread(start)))
    return target if target == base else int64(-1)


@step
def send_ordinary(context, worker, start, length, backend, target):
    """Send an ordinary packet, in a frame of ``length`` bytes, to its backend by IP in IP.

    Return the interface that it leaves by, or -1 if the frame could not grow. The packet is counted first, so that
    fewer values have to outlast the call that grows the frame.
    """
    row, outer = traffic_row(traffic(context), worker * backend_limit(context) + target), outer_length(start)
    verdict = count_row(verdicts(context), worker * VERDICTS + FORWARDED)
    if is_syn(start):
        row.flows += u64(1)
    row.packets += u64(1)
    row.bytes += u64(outer)
    verdict.packets += u64(1)
    verdict.bytes += u64(length)
    leaves_by = encapsulate_ordinary(context, backend, outer)
    if leaves_by < 0:
        row.packets -= u64(1)
        row.bytes -= u64(outer)
        verdict.packets -= u64(1)
        verdict.bytes -= u64(length)
        count(context, worker, NO_HEADROOM, length)
    return leaves_by


@step
def at_usual_offsets(packet):
    """Return the packet with its header offsets as constants, so that the code for the usual offsets is faster."""
    return Packet(
        packet.verdict, int64(4), u64(0), packet.source_low, u64(0), packet.destination_low, packet.ports,
        packet.protocol, packet.flags, int64(ETHERNET_BYTES), int64(USUAL_TRANSPORT),
    )  # fmt: skip


@step
def forward_parsed(context, worker, now, start, end, packet, found):
    """Process a parsed packet. Return (verdict, backend or -1). ``found`` is as of ``steady_backend``."""
    packet = merge_verifier_paths(context, settings_row(settings(context), 0), packet)
    target = untracked(context, worker, packet, found)
    if target < 0:
        index = int64(-2) - found if found < -1 else service_of(context, packet)
        arguments = worker, now, start, end
        verdict, target = at_service(context, packet, index, allowed, to_backend, arguments)
        if target < 0:
            return verdict, target
    if unlikely((frame_flags(context) & UNFINISHED_CHECKSUM) != 0):
        finish_checksum(start, packet)
    setting = settings_row(settings(context), 0)
    verdict, length = encapsulate(context, setting, start, packet, backend_row(backends(context), target))
    if verdict == FORWARDED:
        row = traffic_row(traffic(context), worker * backend_limit(context) + target)
        row.packets += u64(1)
        row.bytes += u64(length)
    return verdict, target


@step
def service_of(context, packet):
    """Return the index of the service that the packet's destination matches, or -1. It may be beyond the table."""
    setting, port = settings_row(settings(context), 0), destination_port(packet.ports)
    return match_service(context, setting, VIP, packet.destination_high, packet.destination_low, port, packet.protocol)


@step
def with_service(context, packet, check, then, arguments):
    """Match the packet's destination to a service, check the source, and take the step ``then``.

    ``check`` is ``allowed`` or ``unchecked``. Return what ``then`` returns: (verdict, a number). Return (verdict, -1)
    of a packet that does not get there.
    """
    return at_service(context, packet, service_of(context, packet), check, then, arguments)


@step
def at_service(context, packet, index, check, then, arguments):
    """Do what ``with_service`` does after the match, which gave ``index``."""
    setting = settings_row(settings(context), 0)
    if unlikely(index < 0):
        return NOT_VIP, int64(-1)
    if unlikely(index >= service_limit(context)):
        return OUT_OF_TABLE, int64(-1)
    service = active_service(context, setting, index)
    if not check(context, service, packet.source_high, packet.source_low):
        return DENIED, int64(-1)
    return then(context, setting, packet, index, service, arguments)


@step
def to_backend(context, setting, packet, index, service, arguments):
    """Choose the packet's backend. Return (any, backend), or (verdict, -1) of a packet without one."""
    worker, now, start, end = arguments
    if unlikely(remaining_ttl(start, packet) <= 1):
        return TTL, int64(-1)
    target = choose(context, setting, worker, start, end, packet, index, service, now)
    if target >= 0:
        return FORWARDED, target
    return UNSETTLED if target == PUNT else without_backend(context, worker, index, service, packet, now), int64(-1)


@step
def count(context, worker, verdict, length):
    row = count_row(verdicts(context), worker * VERDICTS + (int64(verdict) & (VERDICTS - 1)))
    row.packets += u64(1)
    row.bytes += u64(length)


@step
def run_counted(context, steps):
    """Run ``steps`` (an agent's inbound or outbound) on one frame and count the verdict."""
    worker, length = current_worker(context), frame_length(context)
    if worker >= worker_limit(context):
        return OUT_OF_TABLE, int64(-1)
    verdict, target = steps(context, worker, clock(context))
    count(context, worker, verdict, length)
    return verdict, target


@step
def run(context):
    """Process and count one frame. Return (verdict, backend or -1, the interface that a forwarded frame leaves by)."""
    worker, start, end = current_worker(context), frame(context), frame_end(context)
    length, target = frame_length(context), int64(-1)
    if worker >= worker_limit(context):
        return OUT_OF_TABLE, target, int64(0)
    if is_plain(context) and is_ordinary(context, start, end, length):
        target = steady_backend(context, start)
        if target >= 0:
            backend = backend_row(backends(context), target)
            if fits_ipip(start, backend):
                interface = send_ordinary(context, worker, start, length, backend, target)
                return FORWARDED if interface >= 0 else NO_HEADROOM, target, interface
            target = int64(barrier_var(u64(target)))  # else it would be set before each of the jumps that lead here
        packet = ordinary_packet(reread(start))
    else:
        packet = parse(context, start, end)
    verdict, target = forward(context, worker, start, end, packet, target)
    count(context, worker, verdict, length)
    if verdict != FORWARDED or target < 0 or target >= backend_limit(context):
        return verdict, target, int64(0)
    return verdict, target, int64(backend_row(backends(context), target).interface)
