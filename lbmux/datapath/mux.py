"""The mux: frame -> parse -> match the VIP -> flow table -> (miss: Maglev slot) -> encapsulate -> frame.

This one function is the way of a packet, in user space and in the kernel.
"""

from lbmux.datapath.checksums import finish_checksum
from lbmux.datapath.encapsulate import encapsulate
from lbmux.datapath.flows import count_lookup, flow_hash, is_alive, lookup, remember, still_good
from lbmux.datapath.hashing import murmur3, scale
from lbmux.datapath.headers import ETHERNET_BYTES, SYN, ipv4
from lbmux.datapath.match import match
from lbmux.datapath.memory import int64, step, u32, u64
from lbmux.datapath.parse import PARSED, destination_port, parse, unmapped
from lbmux.datapath.tables import (
    ELSEWHERE,
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
from lbmux.datapath.world import (
    TAGGED,
    UNFINISHED_CHECKSUM,
    backend_limit,
    backends,
    clock,
    frame,
    frame_end,
    frame_flags,
    frame_length,
    service_limit,
    services,
    settings,
    slot_limit,
    slots,
    traffic,
    verdicts,
    worker,
    worker_limit,
)

NOT_VIP, NO_BACKEND, OUT_OF_TABLE = int(Verdict.NOT_VIP), int(Verdict.NO_BACKEND), int(Verdict.OUT_OF_TABLE)
FORWARDED, VLAN = int(Verdict.FORWARDED), int(Verdict.VLAN)
NO_SLOT = 0xFFFF
"""A slot without a backend."""


@step
def select(world, service, packet):
    """The backend of the packet's Maglev slot, or -1."""
    if service.size == 0:
        return int64(-1)
    source, destination = unmapped(packet.source_low), unmapped(packet.destination_low)
    hashed = murmur3(service.seed, source, destination, packet.ports, u32(packet.protocol))
    slot = int64(service.slots) + scale(hashed, service.size)
    if slot >= slot_limit(world):
        return int64(-1)
    backend = int64(slot_row(slots(world), slot).backend)
    return backend if backend < backend_limit(world) else int64(-1)


@step
def known(world, setting, who, hashed, packet, index, service, now):
    """The backend that the packet's flow has, or -1."""
    bucket, way = lookup(world, who, hashed, packet.source_high, packet.source_low, packet.ports, index)
    if way < 0:
        return int64(-1)
    flow = flow_row(bucket, way)
    target = int64(flow.target)
    if target >= backend_limit(world):
        return int64(-1)
    backend = backend_row(backends(world), target)
    good = still_good(world, setting, who, who, hashed, bucket, flow, backend, service, packet.flags, now)
    return target if good else int64(-1)


@step
def elsewhere(world, setting, who, hashed, packet, index, service, now):
    """The backend that the packet's flow has in another worker's part, or -1.

    A flow may change its worker (its CPU) at any time.  Its slot gives it the same backend as before, unless the Maglev
    tables have changed since it began: only then, and not for a flow that begins, are the other parts looked at.
    """
    target = int64(-1)
    if (packet.flags & SYN) != 0 or u32(now - setting.changed) > setting.idle_longest:
        return target
    for turn in range(1, worker_limit(world)):
        part = who + turn if who + turn < worker_limit(world) else who + turn - worker_limit(world)
        if target < 0:
            bucket, way = lookup(world, part, hashed, packet.source_high, packet.source_low, packet.ports, index)
            flow = flow_row(bucket, way & (WAYS - 1))
            candidate = int64(flow.target)
            if way >= 0 and candidate < backend_limit(world):
                backend = backend_row(backends(world), candidate)
                if is_alive(flow, backend, service, now):
                    target = candidate
    return target


@step
def choose(world, setting, who, packet, index, service, now):
    """The backend of a packet: that of its flow, else that of its slot, which the flow then keeps; or -1."""
    hashed = flow_hash(setting, packet.source_high, packet.source_low, packet.ports, packet.destination_low)
    target = known(world, setting, who, hashed, packet, index, service, now)
    if target >= 0:
        return target
    target = elsewhere(world, setting, who, hashed, packet, index, service, now)
    if target >= 0:
        count_lookup(world, who, ELSEWHERE)
    else:
        target = select(world, service, packet)
    if target < 0:
        return target
    remember(
        world, setting, who, hashed, packet.source_high, packet.source_low, packet.ports, index,
        target, backend_row(backends(world), target).generation, service, now,
    )  # fmt: skip
    traffic_row(traffic(world), who * backend_limit(world) + target).flows += u64(1)
    return target


@step
def forward(world, who, now):
    """One frame on its way through the mux: (verdict, backend or -1)."""
    start, end = frame(world), frame_end(world)
    if (frame_flags(world) & TAGGED) != 0:
        return VLAN, int64(-1)
    packet = parse(start, end, frame_length(world) - ETHERNET_BYTES)
    if packet.verdict != PARSED:
        return packet.verdict, int64(-1)
    setting = settings_row(settings(world), 0)
    port = destination_port(packet.ports)
    index = match(world, setting, VIP, packet.destination_high, packet.destination_low, port, packet.protocol)
    if index < 0:
        return NOT_VIP, int64(-1)
    if index >= service_limit(world):
        return OUT_OF_TABLE, int64(-1)
    service = service_row(services(world), int64(setting.active & u32(1)) * service_limit(world) + index)
    target = choose(world, setting, who, packet, index, service, now)
    if target < 0:
        return NO_BACKEND, int64(-1)
    if (frame_flags(world) & UNFINISHED_CHECKSUM) != 0:
        finish_checksum(start, ETHERNET_BYTES, ipv4(start, ETHERNET_BYTES))
    verdict, length = encapsulate(world, start, backend_row(backends(world), target))
    if verdict == FORWARDED:
        row = traffic_row(traffic(world), who * backend_limit(world) + target)
        row.packets += u64(1)
        row.bytes += u64(length)
    return verdict, target


@step
def count(world, who, verdict, length):
    row = count_row(verdicts(world), who * VERDICTS + (int64(verdict) & (VERDICTS - 1)))
    row.packets += u64(1)
    row.bytes += u64(length)


@step
def counted(world, way):
    """One frame on a ``way`` (forward; an agent's inbound or outbound), its verdict counted: what the way returns."""
    who, length = worker(world), frame_length(world)
    if who >= worker_limit(world):
        return OUT_OF_TABLE, int64(-1)
    verdict, target = way(world, who, clock(world))
    count(world, who, verdict, length)
    return verdict, target


@step
def run(world):
    """One frame through the mux: (verdict, backend or -1)."""
    return counted(world, forward)
