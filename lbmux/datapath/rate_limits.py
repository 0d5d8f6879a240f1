"""Rate limits: a service's packets, its new flows, and the new flows to each of its backends.

The mux takes this step for backends of services that set a limit, once a packet's backend is known. A limit is a RATE
row that all workers share, by the generic cell rate algorithm (ITU-T I.371, annex A): ``full_until`` is the time at
which the limit has room for a whole burst again, and each packet moves it by ``price``. It moves by one atomic
addition, so no packet is forgotten if two workers come at once; at most one packet of each is then admitted too many.

A packet begins a flow if it is a SYN, a QUIC Initial that names no server, or a datagram from an unknown source. New
flows have only the first half of ``packets_per_s``'s burst, so packets of established flows pass first.
"""

from lbmux.datapath.atomics import atomic_add
from lbmux.datapath.context import backend_limit, backends, clock, rates, service_limit, services, settings, traffic
from lbmux.datapath.frame import frame, frame_end
from lbmux.datapath.known_sources import enter_source, is_known, source_hash
from lbmux.datapath.memory import advance, int64, step, u32, u64
from lbmux.datapath.quic import may_be_initial, named_server
from lbmux.datapath.tables import (
    FLOW_RATE,
    PACKET_RATE,
    RATE,
    RATE_BLOCKS,
    backend_row,
    rate_row,
    service_row,
    settings_row,
    traffic_row,
)
from lbmux.datapath.verdicts import Verdict
from lbmux.wire.numbers import SYN, TCP_PROTOCOL

OVER_PACKET_RATE, OVER_FLOW_RATE = int(Verdict.OVER_PACKET_RATE), int(Verdict.OVER_FLOW_RATE)
OVER_FLOW_SHARE, OUT_OF_TABLE = int(Verdict.OVER_FLOW_SHARE), int(Verdict.OUT_OF_TABLE)
WITHIN = 0
RATE_BYTES = RATE.itemsize
TIME_SHIFT, PRICE_SHIFT = 32, 10
"""Shifts that convert ticks, and units of ``price``, to the units of ``full_until``."""
BURST = 1 << TIME_SHIFT + 10
"""The longest burst, as the time that its packets take of the limit: 1024 ticks (1.07 s)."""
STALE = 1 << TIME_SHIFT + 20
"""A ``full_until`` further ahead than this has passed: the difference is unsigned, and the clock wraps in 52 days."""


@step
def service_limit_row(context, kind, index):
    """Return a pointer to the RATE row of one kind of limit (PACKET_RATE, ...) of a service."""
    return advance(rates(context), (kind * service_limit(context) + index) * RATE_BYTES)


@step
def backend_limit_row(context, target):
    """Return a pointer to the RATE row of the new flows of a backend."""
    return advance(rates(context), (RATE_BLOCKS * service_limit(context) + target) * RATE_BYTES)


@step
def is_within(limit, now, burst):
    """Return whether one more packet is within the limit at this pointer. ``burst``: at most BURST."""
    row = rate_row(limit, 0)
    price, ahead = u64(row.price) << u64(PRICE_SHIFT), row.full_until - (u64(now) << u64(TIME_SHIFT))
    return price == u64(0) or ahead > u64(STALE) or ahead + price <= burst


@step
def take(limit, now, burst):
    """Return what ``is_within`` does, and count the packet if it is within the limit."""
    row = rate_row(limit, 0)
    if not is_within(limit, now, burst):
        return False
    time, price = u64(now) << u64(TIME_SHIFT), u64(row.price) << u64(PRICE_SHIFT)
    if row.full_until - time > u64(STALE):
        row.full_until = time + price
    else:
        atomic_add(limit, price)
    return True


@step
def over_limit(context, worker, packet, target):
    """Return WITHIN, or the verdict of a packet to a backend that is over a limit of its service.

    A new flow is checked against its backend's limit first, so a flood at one backend does not use up the others'
    share of the service's limit. It is counted here.
    """
    setting, start, end, now = settings_row(settings(context), 0), frame(context), frame_end(context), clock(context)
    index = int64(backend_row(backends(context), target).service)
    if index >= service_limit(context):
        return int64(OUT_OF_TABLE)
    service = service_row(services(context), int64(setting.active & u32(1)) * service_limit(context) + index)
    is_datagram, hashed = packet.protocol != TCP_PROTOCOL and service.quic_bytes == 0, u32(0)
    if packet.protocol == TCP_PROTOCOL:
        is_new = (packet.flags & SYN) != 0
    elif service.quic_bytes != 0:
        is_new = may_be_initial(start, end, packet)
        is_new = is_new and named_server(context, setting, start, end, packet, index, service) < 0
    else:
        hashed = source_hash(setting, packet, index)
        is_new = not is_known(context, hashed, now)
    if is_new:
        if not take(backend_limit_row(context, target), now, u64(BURST)):
            return int64(OVER_FLOW_SHARE)
        if not take(service_limit_row(context, FLOW_RATE, index), now, u64(BURST)):
            return int64(OVER_FLOW_RATE)
    if not take(service_limit_row(context, PACKET_RATE, index), now, u64(BURST) >> u64(is_new)):
        return int64(OVER_PACKET_RATE)
    if is_new:
        traffic_row(traffic(context), worker * backend_limit(context) + target).admitted += u64(1)
    if is_datagram:
        enter_source(context, hashed, now)
    return int64(WITHIN)
