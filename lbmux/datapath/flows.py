"""The flow table: maps a flow to its backend (at an agent: to its endpoint).

This is the third step. The table is set-associative and bounded: a flow is in its first bucket, or in its second one
if the first already has its share of trusted flows. There are two classes, as in Ananta (SIGCOMM 2013, section 3.3.3):
a flow seen once is untrusted, a flow seen again is trusted, and each class has a share of a bucket. A new flow may
evict an untrusted flow, never a trusted one, so a flood of new flows cannot evict established ones. The victim is a
random untrusted flow: evicting the oldest would let flows that arrive in rotation evict each other for ever.

All CPUs and user space share the table (lbmux.datapath.flow_lookup). A flow is entered under the lock of its first
bucket, so that two CPUs that get packets of a new flow at once agree on its backend. No CPU waits for long: if the lock
is not free within a few tries, the packet goes without an entry, and the next packet finds the other CPU's.
"""

from lbmux.datapath.atomics import compare_exchange, fetch_and, fetch_or, fetch_xor, load_first
from lbmux.datapath.branchless import highest, is_negative, lowest, members
from lbmux.datapath.context import barrier
from lbmux.datapath.counters import count_lookup
from lbmux.datapath.flow_lookup import (
    STATE,
    bucket_at,
    delete,
    first_way,
    generation_of,
    idle_for,
    idle_limit,
    is_idle,
    is_of,
    is_trusted,
    lookup,
    place_of,
    second_hash,
    set_state,
    state_of,
    target_of,
    trusted_in,
    word_of,
)
from lbmux.datapath.memory import int64, step, u16, u32, u64, unlikely
from lbmux.datapath.tables import (
    CLAIMED,
    CLOSING,
    CONTENDED,
    EVICTED,
    EXPIRED,
    FULL,
    HIT,
    LOCKED,
    LOST,
    NEW,
    OVERFLOWED,
    TRUSTED,
    UNTRUSTED,
    VERSION_SHIFT,
    WAYS,
    entry_row,
)
from lbmux.wire.numbers import FIN, RST, SYN

ALL_WAYS = (1 << WAYS) - 1
FIELDS = LOCKED - 1
"""The part of a word below its flags."""
LOCK_TRIES = 8
"""With more tries LLVM would keep the loop, and the kernel's verifier follows each iteration."""


@step
def time_left(setting, word, entry, owner, row, now):
    """Return the ticks until a flow may be replaced by a flow of ``owner``, whose idle limits are in ``row``.

    A trusted flow of another owner may have a longer idle limit, so the longest limit of all applies to it.
    """
    state = state_of(word)
    limit = idle_limit(state, row)
    if state == TRUSTED and u16(word) != u16(owner):
        limit = setting.longest_idle
    return int64(limit) - idle_for(entry, now)


@step
def touch(setting, bucket, way, word, flags, now):
    """Record a packet of a known flow. The flow becomes trusted, or closing after FIN or RST.

    Return False if it cannot become trusted, because its bucket has its share of trusted flows.
    """
    entry_row(bucket, way).seen = now
    state = state_of(word)
    if (flags & (FIN | RST)) != 0:
        if state != CLOSING:
            set_state(bucket, way, word, CLOSING)
    elif unlikely(state == UNTRUSTED):
        if trusted_in(bucket) >= int64(setting.trusted_ways):
            return False
        set_state(bucket, way, word, TRUSTED)
    return True


@step
def move(context, setting, hashed, bucket, way, word, row, now):
    """Move a flow that cannot become trusted in its first bucket to its second one, if that one's share allows it.

    Otherwise the next flood would evict the fourth established flow of a bucket.
    """
    other, first = second_hash(hashed), bucket_at(context, hashed)
    second = bucket_at(context, other)
    if trusted_in(second) >= int64(setting.trusted_ways) or not lock(first):
        return
    owner, entry = int64(u16(word)), entry_row(bucket, way)
    place = free_place(setting, second, other, owner, row, now)
    claimed = claim(context, setting, second, place, owner, row, now) if place >= 0 else u64(0)
    if claimed != u64(0):
        fields = freeze(context, bucket, way, word)
        enter(second, place & (WAYS - 1), claimed, entry.high, entry.low, entry.ports, fields, now)
        if fields != u64(0):
            fetch_or(first, u64(OVERFLOWED))
            fetch_and(place_of(bucket, way), ~u64(CLAIMED))
    unlock(first)


@step
def freeze(context, bucket, way, word):
    """Claim an entry to move it, and return its fields, trusted; return 0 if its ``word`` has changed."""
    place = place_of(bucket, way)
    present = load_first(context, place)
    frozen = (present & ~u64(STATE)) | u64(CLAIMED)
    if (present ^ word) & ~u64(LOCKED | OVERFLOWED) != u64(0) or compare_exchange(place, present, frozen) != present:
        return u64(0)
    return word_of(u16(word), TRUSTED, generation_of(word), target_of(word))


@step
def lock(bucket):
    """Lock a bucket for the flows whose first one it is. Return False if it stays locked."""
    for _ in range(LOCK_TRIES):
        before = fetch_or(bucket, u64(LOCKED))
        if (before & u64(LOCKED)) == u64(0):
            return True
    return False


@step
def unlock(bucket):
    fetch_and(bucket, ~u64(LOCKED))


@step
def still_good(context, setting, worker, hashed, bucket, way, word, target, row, flags, now):
    """Return whether an entry is usable: its ``target`` row is in use and it was not idle too long. Count and touch it.

    ``row`` has the idle limits. A SYN on a closing flow starts a new flow.
    """
    if unlikely(not is_of(word, target)):
        delete(bucket, way, word)
        count_lookup(context, worker, LOST)
        return False
    is_new = (flags & SYN) != 0 and state_of(word) == CLOSING
    if unlikely(is_idle(word, entry_row(bucket, way), row, now) or is_new):
        delete(bucket, way, word)
        count_lookup(context, worker, EXPIRED)
        return False
    if not touch(setting, bucket, way, word, flags, now):
        move(context, setting, hashed, bucket, way, word, row, now)
    count_lookup(context, worker, HIT)
    return True


@step
def is_claimed(word):
    """Return 1 if the entry is being written, else 0."""
    return (word & u64(CLAIMED)) >> u64(50)


@step
def free_place(setting, bucket, hashed, owner, row, now):
    """Return a way for a flow of ``owner``: a free or idle one, else a random untrusted flow's (+ WAYS), else -1.

    Sets of ways are the bits of a number, computed without branches: the verifier would follow every state of every
    way.
    """
    first, chance = first_way(hashed), int64(hashed >> u32(20)) ^ int64(now)
    if (entry_row(bucket, first).word & u64(STATE | CLAIMED)) == u64(0) and setting.untrusted_ways >= u32(WAYS):
        return first
    free, protected = u64(0), u64(0)
    for turn in range(WAYS):
        way = turn ^ first
        entry = entry_row(bucket, way)
        word = entry.word
        is_free = is_negative(state_of(word) - 1) | is_negative(time_left(setting, word, entry, owner, row, now))
        is_free &= is_claimed(word) ^ u64(1)
        free |= is_free << u64(turn)
        protected |= (is_free | is_trusted(word) | is_claimed(word)) << u64((way + chance) & (WAYS - 1))
    victims = protected ^ u64(ALL_WAYS)
    if free != u64(0) and (members(victims) < int64(setting.untrusted_ways) or victims == u64(0)):
        return lowest(free) ^ first
    if victims == u64(0):
        return int64(-1)
    return ((highest(victims) - chance) & (WAYS - 1)) + WAYS


@step
def claim(context, setting, bucket, place, owner, row, now):
    """Claim the entry at a place that ``free_place`` returned. Return its word, or 0 if it is not free any more."""
    way = place & (WAYS - 1)
    word, entry = load_first(context, place_of(bucket, way)), entry_row(bucket, way)
    is_needed = is_trusted(word) & (is_negative(time_left(setting, word, entry, owner, row, now)) ^ u64(1))
    claimed = ((word + (u64(1) << u64(VERSION_SHIFT))) & ~u64(STATE)) | u64(CLAIMED)
    if (is_needed | is_claimed(word)) != u64(0) or compare_exchange(place_of(bucket, way), word, claimed) != word:
        return u64(0)
    return claimed


@step
def enter(bucket, way, claimed, high, low, ports, fields, now):
    """Write a flow to an entry that we have claimed, and return its word.

    Others may change the flags of a bucket's first word meanwhile, so only the other bits are written.
    """
    entry = entry_row(bucket, way)
    entry.high, entry.low, entry.ports, entry.seen = high, low, ports, now
    changed = ((claimed ^ fields) & u64(FIELDS)) | u64(CLAIMED)
    fetch_xor(place_of(bucket, way), changed)
    return claimed ^ changed


@step
def remember(context, setting, worker, hashed, high, low, ports, owner, target, generation, row, now):
    """Enter a new flow in its first or second bucket, and count the outcome.

    Return the word of its entry, which another CPU may just have made with another target, or 0 if it has none.
    """
    first = bucket_at(context, hashed)
    if unlikely(not lock(first)):
        count_lookup(context, worker, CONTENDED)
        return u64(0)
    fields = word_of(owner, UNTRUSTED, generation, target)
    word = enter_once(context, setting, worker, hashed, high, low, ports, fields, row, now)
    unlock(first)
    return word


@step
def enter_once(context, setting, worker, hashed, high, low, ports, fields, row, now):
    """Do what ``remember`` does, under the lock of the flow's first bucket."""
    owner = int64(u16(fields))
    _, way, word = lookup(context, hashed, high, low, ports, owner)
    if unlikely(barrier(context, way, low) >= 0):
        count_lookup(context, worker, HIT)
        return word
    bucket = bucket_at(context, hashed)
    place = free_place(setting, bucket, hashed, owner, row, now)
    if place < 0 or (place >= WAYS and trusted_in(bucket) >= int64(setting.trusted_ways)):
        fetch_or(bucket, u64(OVERFLOWED))
        other = second_hash(hashed)
        bucket = bucket_at(context, other)
        place = free_place(setting, bucket, other, owner, row, now)
    if place < 0:
        count_lookup(context, worker, FULL)
        return u64(0)
    claimed = claim(context, setting, bucket, place, owner, row, now)
    if unlikely(claimed == u64(0)):
        count_lookup(context, worker, CONTENDED)
        return u64(0)
    count_lookup(context, worker, EVICTED if place >= WAYS else NEW)
    return enter(bucket, place & (WAYS - 1), claimed, high, low, ports, fields, now)
