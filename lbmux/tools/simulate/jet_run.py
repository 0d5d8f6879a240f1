"""Runs JET's trace under one rule: full tracking, JET's, or lbmux's; compiled, a packet at a time.

A connection breaks when a packet reaches a server that does not have it; one whose server has left is lost, whatever
the rule.  Entries are in a table with a limit, from which the least recently used is evicted.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lbmux.codegen.compiled import compiled_nogil
from lbmux.datapath.memory import int64, step, u64
from lbmux.errors import LbmuxError
from lbmux.tools.simulate.flow_policies import BASE
from lbmux.tools.simulate.jet_trace import (
    ADD,
    LONG_S,
    REMOVE,
    SHORT,
    SHORT_S,
    SHORTEST_S,
    USUAL,
    USUAL_S,
    JetTrace,
    mean_length_s,
)
from lbmux.tools.simulate.random_numbers import GOLDEN, mix
from lbmux.tools.simulate.server_tables import MaglevTable, RendezvousTable, ServerTable
from lbmux.tools.simulate.slot_rule import (
    ENTRY,
    FIN,
    MID,
    NONE,
    SLOT,
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

Rule = Literal["full", "jet", "lbmux"]
RULES = {"full": 0, "jet": 1, "lbmux": 2}
FULL, JET, LBMUX = RULES.values()
TICK_S = 0.01
WHEEL = 1 << 15
"""Ticks until a packet is due: fewer than these, 327 s."""
SWEEP_S = 5.0

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


@dataclass(frozen=True)
class JetRule:
    """``limit``: most entries.  ``idle_s``: for lbmux's rule, how long a connection may be silent."""

    name: str
    rule: Rule
    table: Literal["rendezvous", "maglev"]
    limit: int
    idle_s: float = 300.0


@dataclass(frozen=True)
class JetOutcome:
    """``samples``: shape (samples, 4): time in s, live connections, entries, share of marked slots.

    Marked slots are those whose connections need an entry: all, those that a server of the horizon would take (JET),
    or those that changed (lbmux).
    """

    broken: int
    lost: int
    packets: int
    samples: NDArray[np.float64]


class JetRun:
    """One rule through one trace."""

    def __init__(self, trace: JetTrace, rule: JetRule, size: int) -> None:
        self.trace, self.rule = trace, rule
        self._changes, rng = trace.changes(), np.random.default_rng([trace.seed, 3])
        additions = sum(what == ADD for _, what in self._changes)
        self._working, self._next = list(range(trace.servers)), trace.servers
        every = trace.servers + trace.horizon + additions
        self._seeds, self._rng = rng.integers(0, 1 << 64, every, np.uint64), rng
        self._alive, self._open = np.ones(every, np.uint8), np.ones(every, np.uint8)
        self._table = self._made(self._working, size)
        horizon = list(range(trace.servers + trace.horizon))
        self._union = RendezvousTable(self._seeds, horizon, size) if rule.rule == "jet" else None
        self._slots = np.zeros(size, SLOT)
        self._slots["current"] = self._slots["base"] = self._table.slots
        self._setting = BASE.settings()
        self._setting["idle_tcp_s"] = self._setting["settle_s"] = rule.idle_s
        rows = max(1000, int(2 * trace.connections * mean_length_s() / trace.seconds))
        self._connections, self._entries = np.zeros(rows, CONNECTION), np.zeros(rows, ENTRY)
        self._connections["next"] = [*range(1, rows), -1]
        self._entries["target"] = NONE
        self._heads, self._state = np.full(WHEEL, -1, np.int32), np.zeros(1, STATE)
        self._state["rule"], self._state["limit"] = RULES[rule.rule], min(rule.limit, rows)
        self._state["newest"] = self._state["oldest"] = -1
        self._state["changed"], self._state["gap_s"] = -np.inf, trace.gap_s
        self._state["seed"] = rng.integers(0, 1 << 64, 1, np.uint64)
        self._samples: list[tuple[float, float, float, float]] = []

    def run(self) -> Iterator[float]:
        """Run to the end; yield the time, in seconds, after each sweep."""
        arrivals, tick = self.trace.arrivals(), 0
        count = math.ceil(self.trace.seconds / SWEEP_S)
        sweeps = [(min(number * SWEEP_S, self.trace.seconds), None) for number in range(1, count + 1)]
        for time, what in sorted([*self._changes, *sweeps], key=lambda item: item[0]):
            end = math.ceil(time / TICK_S)
            union = self._union.slots if self._union else self._table.slots
            _advance(
                self._setting, self._state, self._connections, self._entries, self._slots, union, self._alive,
                self._open, self._heads, arrivals, tick, end,
            )  # fmt: skip
            tick = end
            if what is None:
                self._sweep(time)
                yield time
            else:
                self._change(what, time)

    def outcome(self) -> JetOutcome:
        state = self._state[0]
        if state["begun"] != self.trace.connections:
            raise LbmuxError(f"more than {len(self._connections)} live connections at once")
        return JetOutcome(int(state["broken"]), int(state["lost"]), int(state["packets"]), np.array(self._samples))

    def _made(self, servers: list[int], size: int) -> ServerTable:
        if self.rule.table == "maglev":
            return MaglevTable(servers, size)
        return RendezvousTable(self._seeds, servers, size)

    def _change(self, what: int, time: float) -> None:
        """Remove a random server, or add the first of the horizon, which a new one then joins."""
        if what == REMOVE:
            server = self._working.pop(int(self._rng.integers(len(self._working))))
            self._alive[server] = self._open[server] = 0
            self._table.leave(server)
            if self._union:
                self._union.leave(server)
        else:
            self._working.append(self._next)
            self._table.join(self._next)
            self._next += 1
            if self._union and self._next + self.trace.horizon <= len(self._seeds):
                self._union.join(self._next + self.trace.horizon - 1)
        _set_table(self._setting, self._slots, self._table.slots, time)
        self._state["changed"] = time

    def _sweep(self, time: float) -> None:
        marked = 1.0
        if self.rule.rule == "lbmux":
            _sweep(self._setting, self._state, self._slots, self._entries, self._connections, time)
            marked = float((self._slots["marked"] != 0).mean())
        elif self._union:
            marked = float((self._union.slots != self._table.slots).mean())
        self._samples.append((time, float(self._state["live"][0]), float(self._state["entries"][0]), marked))


@compiled_nogil
def _set_table(setting, slots, table, now):  # type: ignore[no-untyped-def]
    for at in range(len(slots)):
        change_slot(setting[0], slots[at], table[at], now)


@compiled_nogil
def _sweep(setting, state, slots, entries, connections, now):  # type: ignore[no-untyped-def]
    sweep(setting[0], slots, entries, connections, now)
    for at in range(len(connections)):
        if connections[at].is_listed and entries[at].target == NONE:
            _unlist(state, connections, at)


@compiled_nogil
def _advance(setting, state, connections, entries, slots, union, alive, is_open, heads, arrivals, first, end):  # type: ignore[no-untyped-def]
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
    connections[at].end = tick + int64(_length_s(_drawn(key, 1), _drawn(key, 2)) / TICK_S) + 1


@step
def _drawn(key, number):  # type: ignore[no-untyped-def]
    """Return a number from 0 to 1, which is the same for a connection under every rule."""
    return (mix(key + u64(number) * u64(GOLDEN)) >> u64(11)) * (1.0 / (1 << 53))


@step
def _length_s(kind, drawn):  # type: ignore[no-untyped-def]
    if kind < SHORT:
        return SHORTEST_S * math.exp(drawn * math.log(SHORT_S / SHORTEST_S))
    return -(USUAL_S if kind < USUAL else LONG_S) * math.log(1.0 - drawn)


@step
def _schedule(state, connections, heads, at, tick):  # type: ignore[no-untyped-def]
    """Put a connection in the list of the tick of its next packet."""
    connections[at].packets += 1
    gap_s = -state[0].gap_s * math.log(1.0 - _drawn(connections[at].key, 2 + connections[at].packets))
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
