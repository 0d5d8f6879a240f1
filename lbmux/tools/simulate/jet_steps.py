"""JET's trace, a packet at a time: the compiled steps, and the rows that they work on."""

import math

import numpy as np

from lbmux.codegen.compiled import compiled_nogil
from lbmux.datapath.memory import int64, step, u64
from lbmux.tools.simulate.jet_trace import LONG_S, SHORT, SHORT_S, SHORTEST_S, USUAL, USUAL_S
from lbmux.tools.simulate.random_numbers import GOLDEN, mix
from lbmux.tools.simulate.slot_rule import (
    FIN,
    MID,
    NONE,
    SYN,
    TCP,
    change_slot,
    enter,
    enters,
    find,
    guess,
    sweep,
    tracks,
)

RULES = {"full": 0, "jet": 1, "lbmux": 2}
FULL, JET, LBMUX = RULES.values()
TICK_S = 0.01
WHEEL = 1 << 15
"""Ticks until a packet is due: fewer than these, 327 s."""

CONNECTION = np.dtype(
    [
        ("key", "u8"), ("packets", "u4"), ("end", "i4"), ("slot", "i4"), ("owner", "i4"), ("next", "i4"),
        ("newer", "i4"), ("older", "i4"), ("is_listed", "u1"),
    ],
    align=True,
)  # fmt: skip
"""``end``: the tick of the last packet.  ``next``: in the list of those due at the same tick, or of free rows.
``newer``, ``older``: neighbours among entries, by use."""
STATE = np.dtype(
    [
        ("rule", "i4"), ("limit", "i4"), ("begun", "i8"), ("free", "i4"), ("newest", "i4"), ("oldest", "i4"),
        ("entries", "i4"), ("live", "i4"), ("changed", "f8"), ("gap_s", "f8"), ("broken", "i8"), ("lost", "i8"),
        ("packets", "i8"), ("seed", "u8"),
    ],
    align=True,
)  # fmt: skip


@compiled_nogil
def set_table(setting, slots, table, now):  # type: ignore[no-untyped-def]
    """Change the slots to those of a new table."""
    for at in range(len(slots)):
        change_slot(setting[0], slots[at], table[at], now)


@compiled_nogil
def sweep_entries(setting, state, slots, entries, connections, now):  # type: ignore[no-untyped-def]
    """Settle slots, and take dropped entries off the list."""
    sweep(setting[0], slots, entries, connections, now)
    for at in range(len(connections)):
        if connections[at].is_listed and entries[at].target == NONE:
            _unlist(state, connections, at)


@compiled_nogil
def advance(setting, state, connections, entries, slots, union, alive, is_open, heads, arrivals, first, end):  # type: ignore[no-untyped-def]
    """Deliver the packets of the ticks from ``first`` to before ``end``."""
    for tick in range(first, end):
        due, heads[tick % WHEEL] = heads[tick % WHEEL], -1
        while due >= 0:
            at = due
            due = connections[at].next
            what = FIN if tick >= connections[at].end else MID
            if _deliver(setting, state, connections, entries, slots, union, alive, is_open, at, what, tick * TICK_S):
                _schedule(state, connections, heads, at, tick)
            else:
                _release(state, connections, entries, at)
        while state[0].begun < len(arrivals) and arrivals[state[0].begun] < (tick + 1) * TICK_S:
            at = state[0].free
            if at < 0:
                break  # `outcome` says so
            state[0].free = connections[at].next
            state[0].live += 1
            _begin(state, connections, at, len(slots), tick)
            _deliver(setting, state, connections, entries, slots, union, alive, is_open, at, SYN, tick * TICK_S)
            _schedule(state, connections, heads, at, tick)


@step
def _begin(state, connections, at, size, tick):  # type: ignore[no-untyped-def]
    state[0].begun += 1
    key = mix(state[0].seed + u64(state[0].begun) * u64(GOLDEN))
    connections[at].key, connections[at].packets, connections[at].owner = key, 0, NONE
    connections[at].slot = int64((key >> u64(32)) * u64(size) >> u64(32))
    connections[at].end = tick + int64(_length_s(_fraction(key, 1), _fraction(key, 2)) / TICK_S) + 1


@step
def _fraction(key, number):  # type: ignore[no-untyped-def]
    """Return a number from 0 to 1, which is the same for a connection under every rule."""
    return (mix(key + u64(number) * u64(GOLDEN)) >> u64(11)) * (1.0 / (1 << 53))


@step
def _length_s(kind, fraction):  # type: ignore[no-untyped-def]
    if kind < SHORT:
        return SHORTEST_S * math.exp(fraction * math.log(SHORT_S / SHORTEST_S))
    return -(USUAL_S if kind < USUAL else LONG_S) * math.log(1.0 - fraction)


@step
def _schedule(state, connections, heads, at, tick):  # type: ignore[no-untyped-def]
    """Put a connection in the list of the tick of its next packet."""
    connections[at].packets += 1
    gap_s = -state[0].gap_s * math.log(1.0 - _fraction(connections[at].key, 2 + connections[at].packets))
    due = tick + min(1 + int64(gap_s / TICK_S), WHEEL - 1)
    due = max(tick + 1, min(due, connections[at].end))
    connections[at].next = heads[due % WHEEL]
    heads[due % WHEEL] = at


@step
def _deliver(setting, state, connections, entries, slots, union, alive, is_open, at, what, now):  # type: ignore[no-untyped-def]
    """Deliver a packet; return whether the connection goes on."""
    owner = connections[at].owner
    if owner != NONE and not alive[owner]:
        state[0].lost += 1
        return False
    state[0].packets += 1
    target = _target(setting, state, connections, entries, slots, union, alive, is_open, at, what, now)
    if what == SYN:
        connections[at].owner = target
    elif target != owner:
        state[0].broken += 1
        return False
    return what != FIN


@step
def _target(setting, state, connections, entries, slots, union, alive, is_open, at, what, now):  # type: ignore[no-untyped-def]
    """Return the server that the rule picks, with an entry where the rule wants one."""
    slot, entry = slots[connections[at].slot], entries[at]
    if state[0].rule == LBMUX and not tracks(setting[0], slot, TCP):
        return slot.current
    target = find(setting[0], entry, what, alive, now) if state[0].rule == LBMUX else entry.target
    if target != NONE:
        entry.seen = now
        _unlist(state, connections, at)
        _list(state, connections, entries, at)
        return target
    if connections[at].is_listed:
        _unlist(state, connections, at)
    target = slot.current
    wants = state[0].rule == FULL or union[connections[at].slot] != target
    if state[0].rule == LBMUX:
        target = guess(setting[0], slot, NONE, TCP, what, alive, is_open, state[0].changed, now)
        wants = enters(setting[0], slot, TCP)
    if wants:
        enter(entry, target, TCP, now)
        _list(state, connections, entries, at)
    return target


@step
def _list(state, connections, entries, at):  # type: ignore[no-untyped-def]
    """Put an entry at the front of the list; evict the last one if there are too many."""
    if state[0].entries >= state[0].limit:
        last = state[0].oldest
        entries[last].target = NONE
        _unlist(state, connections, last)
    connections[at].older, connections[at].newer = state[0].newest, -1
    if state[0].newest >= 0:
        connections[state[0].newest].newer = at
    else:
        state[0].oldest = at
    state[0].newest = at
    connections[at].is_listed = 1
    state[0].entries += 1


@step
def _unlist(state, connections, at):  # type: ignore[no-untyped-def]
    older, newer = connections[at].older, connections[at].newer
    if newer >= 0:
        connections[newer].older = older
    else:
        state[0].newest = older
    if older >= 0:
        connections[older].newer = newer
    else:
        state[0].oldest = newer
    connections[at].is_listed = 0
    state[0].entries -= 1


@step
def _release(state, connections, entries, at):  # type: ignore[no-untyped-def]
    if connections[at].is_listed:
        _unlist(state, connections, at)
    entries[at].target = NONE
    connections[at].next = state[0].free
    state[0].free = at
    state[0].live -= 1
