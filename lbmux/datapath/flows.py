"""The flow table: maps a flow to its backend (at an agent: to its endpoint).

This is the third step. The table is set-associative and bounded: a flow is in its first bucket, or in its second one
if the first already has its share of trusted flows. There are two classes, as in Ananta (SIGCOMM 2013, section 3.3.3):
a flow seen once is untrusted, a flow seen again is trusted, and each class has a share of a bucket. A new flow may
evict an untrusted flow, never a trusted one, so a flood of new flows cannot evict established ones. The victim is a
random untrusted flow: evicting the oldest would let flows that arrive in rotation evict each other for ever.

Every worker has its own table, so there are no locks. User space reads all of them.
"""

from lbmux.datapath.branchless import highest, is_negative, lowest, members
from lbmux.datapath.context import bucket_limit, current_worker, flows, lookups, settings
from lbmux.datapath.hashing import keyed
from lbmux.datapath.memory import advance, int32, int64, prefetch, step, u8, u16, u32, u64, unlikely
from lbmux.datapath.tables import (
    BUCKET_BYTES,
    CLOSING,
    EVICTED,
    EXPIRED,
    FULL,
    GONE,
    HIT,
    LOOKUP_ROWS,
    LOST,
    NEW,
    TRUSTED,
    UNTRUSTED,
    WAYS,
    flow_row,
    lookup_row,
    settings_row,
)
from lbmux.wire.numbers import FIN, RST, SYN

ALL_WAYS = (1 << WAYS) - 1
SECOND = 0x9E3779B9
"""The factor that turns a flow's hash into the hash of its second bucket."""


@step
def count_lookup(context, worker, what):
    lookup_row(lookups(context), worker * LOOKUP_ROWS + what).count += u64(1)


@step
def flow_hash(setting, high, low, ports, destination_low):
    """Hash addresses and ports, but not the owner, so that a driver can prefetch the bucket before the match."""
    return keyed(setting, u32(0), high, low, ports, u32(destination_low >> u64(32)))


@step
def anticipate(context, high, low, ports, destination_low):
    """Prefetch both cache lines of a flow's bucket, some frames ahead."""
    hashed = flow_hash(settings_row(settings(context), 0), high, low, ports, destination_low)
    bucket = bucket_at(context, current_worker(context), hashed)
    prefetch(bucket)
    prefetch(advance(bucket, 64))


@step
def bucket_at(context, worker, hashed):
    """Return the bucket of ``hashed`` in a worker's table. ``worker`` is below the limit."""
    index = worker * bucket_limit(context) + (int64(hashed) & (bucket_limit(context) - 1))
    return advance(flows(context), index * BUCKET_BYTES)


@step
def second_hash(hashed):
    return u32(u32(hashed ^ u32(hashed >> u32(15))) * u32(SECOND))


@step
def first_way(hashed):
    """Return the preferred way of a flow in its bucket: the first way of one of the two cache lines."""
    return int64(hashed >> u32(31)) * (WAYS // 2)


@step
def find(bucket, hashed, high, low, ports, owner):
    """Return the way of a flow in a bucket, or -1. One branch per way, since the way cannot be predicted."""
    first = first_way(hashed)
    for turn in range(WAYS):
        way = turn ^ first
        flow = flow_row(bucket, way)
        different = (flow.low ^ low) | (flow.high ^ high) | u64(flow.ports ^ ports) | u64(flow.owner ^ u16(owner))
        if different == u64(0) and flow.state != 0:
            return int64(way)
    return int64(-1)


@step
def idle_limit(state, row):
    """Return the idle limit of a flow in that state, in ticks. ``row`` is its SERVICE or ENDPOINT."""
    return row.idle_trusted if state == TRUSTED else row.idle_untrusted if state == UNTRUSTED else row.idle_closing


@step
def idle_for(flow, now):
    """Return the idle time in ticks. It is signed, since another worker's clock may be slightly ahead."""
    return int64(int32(u32(now - flow.seen)))


@step
def is_idle(flow, row, now):
    return idle_for(flow, now) > int64(idle_limit(flow.state, row))


@step
def time_left(setting, flow, owner, row, now):
    """Return the ticks until a flow may be replaced by a flow of ``owner``, whose idle limits are in ``row``.

    A trusted flow of another owner may have a longer idle limit, so the longest limit of all applies to it.
    """
    limit = idle_limit(flow.state, row)
    if flow.state == TRUSTED and flow.owner != u16(owner):
        limit = setting.longest_idle
    return int64(limit) - idle_for(flow, now)


@step
def touch(setting, bucket, flow, flags, now):
    """Record a packet of a known flow. The flow becomes trusted, or closing after FIN or RST.

    Return False if it cannot become trusted, because its bucket has its share of trusted flows.
    """
    flow.seen = now
    if (flags & (FIN | RST)) != 0:
        flow.state = CLOSING
    elif flow.state == UNTRUSTED:
        if trusted_in(bucket) >= int64(setting.trusted_ways):
            return False
        flow.state = TRUSTED
    return True


@step
def move(context, setting, table_worker, hashed, flow, row, now):
    """Move a flow that cannot become trusted in its first bucket to its second one, if that one's share allows it.

    Otherwise the next flood would evict the fourth established flow of a bucket.
    """
    other = second_hash(hashed)
    second = bucket_at(context, table_worker, other)
    if trusted_in(second) >= int64(setting.trusted_ways):
        return
    owner, target = int64(flow.owner), int64(flow.target)
    place = free_place(setting, second, other, owner, row, now)
    if place < 0:
        return
    to = flow_row(second, place & (WAYS - 1))
    enter(to, flow.high, flow.low, flow.ports, owner, target, flow.generation, now)
    to.state = TRUSTED
    flow_row(bucket_at(context, table_worker, hashed), 0).overflowed = 1
    flow.state = 0


@step
def trusted_in(bucket):
    trusted = u64(0)
    for way in range(WAYS):
        trusted += is_trusted(flow_row(bucket, way))
    return int64(trusted)


@step
def is_trusted(flow):
    """Return 1 if the flow is trusted, else 0, without a branch."""
    return is_negative(int64(flow.state ^ u8(TRUSTED)) - 1)


@step
def lookup(context, table_worker, hashed, high, low, ports, owner):
    """Find a flow in the table of worker ``table_worker``. Return (its bucket, its way there or -1)."""
    bucket = bucket_at(context, table_worker, hashed)
    way = find(bucket, hashed, high, low, ports, owner)
    if way < 0 and flow_row(bucket, 0).overflowed != 0:
        other = second_hash(hashed)
        second = bucket_at(context, table_worker, other)
        way = find(second, other, high, low, ports, owner)
        if way >= 0:
            bucket = second
    return bucket, way


@step
def is_alive(flow, target, row, now):
    """Return whether an entry of another worker is usable. Unlike ``still_good`` this does not change the entry."""
    return target.state != GONE and target.generation == flow.generation and not is_idle(flow, row, now)


@step
def still_good(context, setting, worker, table_worker, hashed, bucket, flow, target, row, flags, now):
    """Return whether an entry is usable: its ``target`` row is in use and it was not idle too long. Count and touch it.

    ``row`` has the idle limits. A SYN on a closing flow starts a new flow.
    """
    if unlikely(target.state == GONE or target.generation != flow.generation):
        flow.state = 0
        count_lookup(context, worker, LOST)
        return False
    if unlikely(is_idle(flow, row, now) or ((flags & SYN) != 0 and flow.state == CLOSING)):
        flow.state = 0
        count_lookup(context, worker, EXPIRED)
        return False
    if not touch(setting, bucket, flow, flags, now):
        move(context, setting, table_worker, hashed, flow, row, now)
    count_lookup(context, worker, HIT)
    return True


@step
def free_place(setting, bucket, hashed, owner, row, now):
    """Return a way for a flow of ``owner``: a free or idle one, else a random untrusted flow's (+ WAYS), else -1.

    Sets of ways are the bits of a number, computed without branches: the verifier would follow every state of every
    way.
    """
    first, chance = first_way(hashed), int64(hashed >> u32(20)) ^ int64(now)
    if flow_row(bucket, first).state == 0 and setting.untrusted_ways >= u32(WAYS):
        return first
    free, protected = u64(0), u64(0)
    for turn in range(WAYS):
        way = turn ^ first
        flow = flow_row(bucket, way)
        is_free = is_negative(int64(flow.state) - 1) | is_negative(time_left(setting, flow, owner, row, now))
        free |= is_free << u64(turn)
        protected |= (is_free | is_trusted(flow)) << u64((way + chance) & (WAYS - 1))
    victims = protected ^ u64(ALL_WAYS)
    if free != u64(0) and (members(victims) < int64(setting.untrusted_ways) or victims == u64(0)):
        return lowest(free) ^ first
    if victims == u64(0):
        return int64(-1)
    return ((highest(victims) - chance) & (WAYS - 1)) + WAYS


@step
def enter(flow, high, low, ports, owner, target, generation, now):
    """Write a new flow. The state is written last, so that a concurrent reader sees an empty entry."""
    flow.state = 0
    flow.high, flow.low, flow.ports = high, low, ports
    flow.owner, flow.target, flow.generation = u16(owner), u16(target), u8(generation)
    flow.seen = now
    flow.state = UNTRUSTED


@step
def remember(context, setting, worker, hashed, high, low, ports, owner, target, generation, row, now):
    """Enter a new flow in its first or second bucket, and count the outcome."""
    bucket = bucket_at(context, worker, hashed)
    place = free_place(setting, bucket, hashed, owner, row, now)
    if place < 0 or (place >= WAYS and trusted_in(bucket) >= int64(setting.trusted_ways)):
        flow_row(bucket, 0).overflowed = 1
        other = second_hash(hashed)
        bucket = bucket_at(context, worker, other)
        place = free_place(setting, bucket, other, owner, row, now)
    if place < 0:
        count_lookup(context, worker, FULL)
        return
    count_lookup(context, worker, EVICTED if place >= WAYS else NEW)
    enter(flow_row(bucket, place & (WAYS - 1)), high, low, ports, owner, target, generation, now)
