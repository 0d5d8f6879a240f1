"""The mux: frame -> parse -> match the VIP -> access -> flow table -> (miss: Maglev slot) -> encapsulate -> frame.

The same functions run in user space and in the kernel. The order of the steps is in ``forward``, ``with_service`` and
``to_backend``, and lbmux.datapath.choose picks the backend. The slow path (lbmux.slowpath.flow_steps) and `lbmux
explain` (lbmux.tools.dry_run) call the same functions with other steps at their ends. In the kernel, ordinary packets
take a shorter path first (lbmux.datapath.ordinary); what it finds is what these functions would find.
"""

from lbmux.datapath.access import allowed
from lbmux.datapath.checksums import finish_checksum
from lbmux.datapath.choose import choose, slot_pair, untracked
from lbmux.datapath.context import (
    backend_limit,
    backends,
    barrier,
    clock,
    current_worker,
    is_plain,
    service_limit,
    services,
    settings,
    traffic,
    verdicts,
    worker_limit,
)
from lbmux.datapath.counters import count_lookup, count_verdict
from lbmux.datapath.encapsulate import encapsulate, remaining_ttl
from lbmux.datapath.flow_lookup import bucket_at, find, flow_hash, is_alive, state_of, target_of
from lbmux.datapath.frame import UNFINISHED_CHECKSUM, frame, frame_end, frame_flags, frame_length
from lbmux.datapath.gate import is_black_holed
from lbmux.datapath.match import match, match_service
from lbmux.datapath.memory import barrier_var, int64, reread, step, u32, u64, unlikely
from lbmux.datapath.ordinary import (
    encapsulate_ordinary,
    encapsulate_ordinary6,
    fits_ipip,
    fits_ipip6,
    is_ordinary,
    is_ordinary6,
    is_syn,
    is_syn6,
    ordinary_packet,
    ordinary_packet6,
    outer_length,
    outer_length6,
)
from lbmux.datapath.parse import PARSED, Packet, destination_port, parse
from lbmux.datapath.rate_limits import BURST, over_limit, service_limit_row, take
from lbmux.datapath.tables import (
    HIT,
    REJECT_RATE,
    TRUSTED,
    VIP,
    backend_row,
    count_row,
    entry_row,
    service_row,
    settings_row,
    traffic_row,
)
from lbmux.datapath.verdicts import VERDICTS, Verdict
from lbmux.wire.header_layouts import ETHERNET_BYTES, IPV4_BYTES
from lbmux.wire.numbers import ACK, FIN, RST, SYN, TCP_PROTOCOL

NOT_VIP, NO_BACKEND, OUT_OF_TABLE = int(Verdict.NOT_VIP), int(Verdict.NO_BACKEND), int(Verdict.OUT_OF_TABLE)
FORWARDED, DENIED, TTL = int(Verdict.FORWARDED), int(Verdict.DENIED), int(Verdict.TTL)
NO_HEADROOM = int(Verdict.NO_HEADROOM)
REJECT, BLACK_HOLED = int(Verdict.REJECT), int(Verdict.BLACK_HOLED)
LEFT = -2
"""Stands in place of an interface: the general path handles the packet."""
USUAL_TRANSPORT = ETHERNET_BYTES + IPV4_BYTES


@step
def active_service(context, setting, index):
    """Return the row of a service, in the copy of the table that is in force."""
    return service_row(services(context), int64(setting.active & u32(1)) * service_limit(context) + index)


@step
def without_backend(context, index, service, packet, now):
    """Return the verdict of a packet without a backend. The kernel punts a limited number for user space to reject.

    It drops mid-connection TCP packets, because their connection continues if a backend comes back.
    """
    is_rejectable = packet.protocol != TCP_PROTOCOL or (packet.flags & (SYN | ACK)) == SYN
    if is_plain(context) and service.rejects != 0 and is_rejectable:
        return REJECT if take(service_limit_row(context, REJECT_RATE, index), now, u64(BURST)) else NO_BACKEND
    return NO_BACKEND


@step
def merge_verifier_paths(context, setting, packet):
    """Return the packet. From here on the verifier follows one path for both families and all flags.

    The protocol is kept: forgetting it would keep apart more paths than it joins.
    """
    family, flags = barrier(context, packet.family, setting.key0), barrier(context, packet.flags, setting.key0)
    return Packet(
        packet.verdict, family, packet.source_high, packet.source_low, packet.destination_high, packet.destination_low,
        packet.ports, packet.protocol, flags, packet.network, packet.transport,
    )  # fmt: skip


@step
def forward(context, worker, start, end, packet, hint):
    """Process one frame. Return (verdict, backend or -1). ``hint`` is what ``steady_backend`` returned."""
    if packet.verdict != PARSED:
        return packet.verdict, int64(-1)
    if not is_plain(context) and packet.transport == USUAL_TRANSPORT:
        return forward_parsed(context, worker, start, end, at_usual_offsets(packet), hint)
    return forward_parsed(context, worker, start, end, packet, hint)


@step
def steady_backend(context, start, fields_of):
    """Return the backend of an ordinary packet, if its slot is steady, its flow needs no entry and its service needs
    nothing else. Otherwise return -2 minus the service's index, or -1 if the service is not known.

    One number holds both, so that only one register is set before each jump off the usual path.
    ``fields_of`` is ``ordinary_packet`` or ``ordinary_packet6``.
    """
    setting, packet = settings_row(settings(context), 0), fields_of(start)
    port = destination_port(packet.ports)
    index = match(context, setting, VIP, packet.destination_high, packet.destination_low, port, packet.protocol)
    if index < 0 or index >= service_limit(context):
        return int64(-1)
    service = active_service(context, setting, index)
    if service.special != 0:
        return int64(-2) - index
    target, base = slot_pair(context, service, fields_of(reread(start)))
    return target if target == base and target >= 0 else late(int64(-1))


@step
def late(number):
    """Return the number, but have the compiler set it where it is used, not before each jump that leads there."""
    return int64(barrier_var(u64(number)))


@step
def established_backend(context, worker, start, hint, fields_of):
    """Return the backend of an ordinary packet of an established flow, and record the packet in the flow's entry.

    If the packet or the service needs more than that, change nothing and return ``hint``, which is what
    ``steady_backend`` returned: it names the service. The backend may need another tunnel than IP in IP.
    """
    setting, packet, index = settings_row(settings(context), 0), fields_of(reread(start)), int64(-2) - hint
    if index < 0 or index >= service_limit(context) or (packet.flags & (SYN | FIN | RST)) != 0:
        return hint
    service = active_service(context, setting, index)
    if (service.rule_count | u32(service.quic_bytes) | u32(service.limited)) != u32(0):
        return hint
    hashed = flow_hash(setting, packet.source_high, packet.source_low, packet.ports, packet.destination_low)
    bucket = bucket_at(context, hashed)
    way, word = find(context, bucket, hashed, packet.source_high, packet.source_low, packet.ports, index)
    if way < 0:
        return hint
    entry, now, target = entry_row(bucket, way), clock(context), target_of(word)
    if state_of(word) != TRUSTED or target >= backend_limit(context):
        return hint
    if not is_alive(word, entry, backend_row(backends(context), target), service, now):
        return hint
    entry.seen = now
    count_lookup(context, worker, HIT)
    return target


@step
def send_if_ordinary(context, worker, start, length, steps):
    """Send an ordinary packet whose backend is found and gets packets by IP in IP.

    Return (its backend, the interface that it leaves by, or -1 if the frame could not grow). For a packet that needs
    more than that, return (what ``steady_backend`` returns, LEFT) and change nothing but its flow's entry.
    """
    fields_of, fits, begins_flow, length_of, encapsulated = steps
    target = steady_backend(context, start, fields_of)
    if target < -1:
        target = established_backend(context, worker, start, target, fields_of)
    if target >= 0:
        backend = backend_row(backends(context), target)
        if fits(start, backend):
            steps = begins_flow, length_of, encapsulated
            return target, send_ordinary(context, worker, start, length, backend, target, steps)
        target = late(target)
    return target, int64(LEFT)


@step
def send_ordinary(context, worker, start, length, backend, target, steps):
    """Send an ordinary packet, in a frame of ``length`` bytes, to its backend by IP in IP.

    Return the interface that it leaves by, or -1 if the frame could not grow. The packet is counted first, so that
    fewer values have to outlast the call that grows the frame.
    """
    begins_flow, length_of, encapsulated = steps
    row, outer = traffic_row(traffic(context), worker * backend_limit(context) + target), length_of(start)
    verdict = count_row(verdicts(context), worker * VERDICTS + FORWARDED)
    if begins_flow(start):
        row.flows += u64(1)
    row.packets += u64(1)
    row.bytes += u64(outer)
    verdict.packets += u64(1)
    verdict.bytes += u64(length)
    leaves_by = encapsulated(context, backend, outer)
    if leaves_by < 0:
        row.packets -= u64(1)
        row.bytes -= u64(outer)
        verdict.packets -= u64(1)
        verdict.bytes -= u64(length)
        count_verdict(context, worker, NO_HEADROOM, length)
    return leaves_by


@step
def at_usual_offsets(packet):
    """Return the packet with its header offsets as constants, so that the code for the usual offsets is faster."""
    return Packet(
        packet.verdict, int64(4), u64(0), packet.source_low, u64(0), packet.destination_low, packet.ports,
        packet.protocol, packet.flags, int64(ETHERNET_BYTES), int64(USUAL_TRANSPORT),
    )  # fmt: skip


@step
def forward_parsed(context, worker, start, end, packet, hint):
    """Process a parsed packet. Return (verdict, backend or -1). ``hint`` is what ``steady_backend`` returned."""
    packet = merge_verifier_paths(context, settings_row(settings(context), 0), packet)
    if hint >= 0:
        target = untracked(context, worker, packet, hint)
    else:
        index = int64(-2) - hint if hint < -1 else service_of(context, packet)
        arguments = worker, clock(context), start, end
        verdict, target = at_service(context, packet, index, allowed, to_backend, arguments)
        if verdict != FORWARDED:
            return verdict, target
    if unlikely((frame_flags(context) & UNFINISHED_CHECKSUM) != 0):
        finish_checksum(start, packet)
    setting, backend = settings_row(settings(context), 0), backend_row(backends(context), target)
    verdict, length = encapsulate(context, setting, start, packet, backend)
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

    ``check`` is ``allowed`` or ``unchecked``. Return what ``then`` returns: (verdict, a number). If the packet matches
    no service or its source is denied, return (verdict, -1).
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
    """Choose the packet's backend. Return (any number, backend), or (verdict, -1) if there is none."""
    worker, now, start, end = arguments
    if unlikely(remaining_ttl(start, packet) <= 1):
        return TTL, int64(-1)
    target = choose(context, setting, worker, start, end, packet, index, service, now)
    if target >= 0:
        if unlikely(service.limited != 0):
            return over_limit(context, worker, packet, target), target
        return FORWARDED, target
    return without_backend(context, index, service, packet, now), int64(-1)


@step
def is_gated_off(context, start, end):
    """Return whether the gate drops the frame. In the kernel the gate is a program of its own."""
    return unlikely(settings_row(settings(context), 0).gated != 0) and is_black_holed(context, start, end)


@step
def run(context):
    """Process and count one frame. Return (verdict, backend or -1, the interface that a forwarded frame leaves by)."""
    worker, start, end = current_worker(context), frame(context), frame_end(context)
    length, target = frame_length(context), late(int64(-1))  # a number that the verifier does not know merges its paths
    if worker >= worker_limit(context):
        return OUT_OF_TABLE, target, int64(0)
    if not is_plain(context) and is_gated_off(context, start, end):
        count_verdict(context, worker, BLACK_HOLED, length)
        return BLACK_HOLED, target, int64(0)
    if is_plain(context) and is_ordinary(context, start, end, length):
        steps = ordinary_packet, fits_ipip, is_syn, outer_length, encapsulate_ordinary
        target, interface = send_if_ordinary(context, worker, start, length, steps)
        if interface > LEFT:
            return FORWARDED if interface >= 0 else NO_HEADROOM, target, interface
        packet = ordinary_packet(reread(start))
    elif is_plain(context) and is_ordinary6(context, frame(context), frame_end(context), length):
        start = frame(context)
        steps = ordinary_packet6, fits_ipip6, is_syn6, outer_length6, encapsulate_ordinary6
        target, interface = send_if_ordinary(context, worker, start, length, steps)
        if interface > LEFT:
            return FORWARDED if interface >= 0 else NO_HEADROOM, target, interface
        packet = ordinary_packet6(reread(start))
    else:
        packet = parse(context, start, end)
    verdict, target = forward(context, worker, start, end, packet, target)
    count_verdict(context, worker, verdict, length)
    if verdict != FORWARDED or target < 0 or target >= backend_limit(context):
        return verdict, target, int64(0)
    return verdict, target, int64(backend_row(backends(context), target).interface)
