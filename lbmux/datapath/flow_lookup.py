"""An entry of the flow table: where it is, how it is read and changed while others do the same.

All CPUs and user space share the table. What changes at once in an entry (owner, state, generation, target) is one
word, which changes by compare-and-exchange. The key beside it changes only while the word is CLAIMED, and each claim
makes a new version. A reader reads the word, the key, and the word again: if the version is the same, the key was the
word's. A packet that is too late to change a word leaves it, and the flow's next packet does it.
"""

from lbmux.datapath.atomics import compare_exchange, load_first, load_last
from lbmux.datapath.branchless import is_negative
from lbmux.datapath.context import bucket_limit, flows, settings
from lbmux.datapath.hashing import keyed
from lbmux.datapath.memory import advance, int32, int64, prefetch, step, u16, u32, u64, unlikely
from lbmux.datapath.tables import (
    BUCKET_BYTES,
    FLOW,
    GONE,
    OVERFLOWED,
    TRUSTED,
    UNTRUSTED,
    VERSION_SHIFT,
    WAYS,
    entry_row,
    settings_row,
)

FLOW_BYTES = FLOW.itemsize
STATE_SHIFT, GENERATION_SHIFT, TARGET_SHIFT, FLAGS_SHIFT = 16, 24, 32, 48
STATE = 0xFF << STATE_SHIFT
SECOND = 0x9E3779B9
"""The factor that turns a flow's hash into the hash of its second bucket."""


@step
def word_of(owner, state, generation, target):
    """Return these fields as a word without flags and version."""
    word = u64(owner) | (u64(state) << u64(STATE_SHIFT))
    return word | (u64(generation) << u64(GENERATION_SHIFT)) | (u64(target) << u64(TARGET_SHIFT))


@step
def state_of(word):
    return int64((word >> u64(STATE_SHIFT)) & u64(0xFF))


@step
def generation_of(word):
    return int64((word >> u64(GENERATION_SHIFT)) & u64(0xFF))


@step
def target_of(word):
    return int64((word >> u64(TARGET_SHIFT)) & u64(0xFFFF))


@step
def place_of(bucket, way):
    """Return a pointer to the word of an entry."""
    return advance(bucket, way * FLOW_BYTES)


@step
def set_state(bucket, way, word, state):
    """Give an entry another state, unless its ``word`` has changed."""
    after = (word & ~u64(STATE)) | (u64(state) << u64(STATE_SHIFT))
    return compare_exchange(place_of(bucket, way), word, after) == word


@step
def delete(bucket, way, word):
    """Delete an entry, unless its ``word`` has changed."""
    return set_state(bucket, way, word, 0)


@step
def set_target(bucket, way, word, target, generation):
    """Give an entry another target, unless its ``word`` has changed. Return its new word, or ``word``."""
    flags = (word >> u64(FLAGS_SHIFT)) << u64(FLAGS_SHIFT)
    after = flags | word_of(u16(word), state_of(word), generation, target)
    return after if compare_exchange(place_of(bucket, way), word, after) == word else word


@step
def flow_hash(setting, high, low, ports, destination_low):
    """Hash addresses and ports, but not the owner, so that a driver can prefetch the bucket before the match."""
    return keyed(setting, u32(0), high, low, ports, u32(destination_low >> u64(32)))


@step
def anticipate(context, high, low, ports, destination_low):
    """Prefetch both cache lines of a flow's bucket, some frames ahead."""
    bucket = bucket_at(context, flow_hash(settings_row(settings(context), 0), high, low, ports, destination_low))
    prefetch(bucket)
    prefetch(advance(bucket, 64))


@step
def bucket_at(context, hashed):
    """Return the bucket of ``hashed``."""
    return advance(flows(context), (int64(hashed) & (bucket_limit(context) - 1)) * BUCKET_BYTES)


@step
def second_hash(hashed):
    return u32(u32(hashed ^ u32(hashed >> u32(15))) * u32(SECOND))


@step
def first_way(hashed):
    """Return the preferred way of a flow in its bucket: the first way of one of the two cache lines."""
    return int64(hashed >> u32(31)) * (WAYS // 2)


@step
def find(context, bucket, hashed, high, low, ports, owner):
    """Return (the way of a flow in a bucket, its word), or (-1, 0).

    One branch per way, since the way cannot be predicted. An entry that is reused while it is read is not found.
    """
    first = first_way(hashed)
    for turn in range(WAYS):
        way = turn ^ first
        place, entry = place_of(bucket, way), entry_row(bucket, way)
        word = load_first(context, place)
        different = (entry.low ^ low) | (entry.high ^ high) | u64(entry.ports ^ ports) | u64(u16(word) ^ u16(owner))
        is_found = different == u64(0) and (word & u64(STATE)) != u64(0)
        if is_found and (word ^ load_last(context, place)) >> u64(VERSION_SHIFT) == u64(0):
            return int64(way), word
    return int64(-1), u64(0)


@step
def lookup(context, hashed, high, low, ports, owner):
    """Find a flow. Return (its bucket, its way there, its word), or (a bucket, -1, 0)."""
    bucket = bucket_at(context, hashed)
    way, word = find(context, bucket, hashed, high, low, ports, owner)
    if way < 0 and unlikely((entry_row(bucket, 0).word & u64(OVERFLOWED)) != u64(0)):
        other = second_hash(hashed)
        second = bucket_at(context, other)
        way, word = find(context, second, other, high, low, ports, owner)
        if way >= 0:
            bucket = second
    return bucket, way, word


@step
def idle_limit(state, row):
    """Return the idle limit of a flow in that state, in ticks. ``row`` is its SERVICE or ENDPOINT."""
    return row.idle_trusted if state == TRUSTED else row.idle_untrusted if state == UNTRUSTED else row.idle_closing


@step
def idle_for(entry, now):
    """Return the idle time in ticks. It is signed, since another CPU's clock may be slightly ahead."""
    return int64(int32(u32(now - entry.seen)))


@step
def is_idle(word, entry, row, now):
    return idle_for(entry, now) > int64(idle_limit(state_of(word), row))


@step
def is_of(word, target):
    """Return whether the entry's ``target`` row is in use, and by the one that the entry names."""
    return target.state != GONE and int64(target.generation) == generation_of(word)


@step
def is_alive(word, entry, target, row, now):
    """Return whether an entry is usable. Unlike ``still_good`` this does not change the entry."""
    return is_of(word, target) and not is_idle(word, entry, row, now)


@step
def is_trusted(word):
    """Return 1 if the flow is trusted, else 0, without a branch."""
    return is_negative(int64(state_of(word) ^ TRUSTED) - 1)


@step
def trusted_in(bucket):
    trusted = u64(0)
    for way in range(WAYS):
        trusted += is_trusted(entry_row(bucket, way).word)
    return int64(trusted)
