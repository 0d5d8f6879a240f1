"""Runs JET's trace under one rule: full tracking, JET's, or lbmux's.

A connection breaks when a packet reaches a server that does not have it; one whose server has left is lost, whatever
the rule.  Entries are in a table with a limit, from which the least recently used is evicted.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lbmux.errors import LbmuxError
from lbmux.tools.simulate.flow_policies import BASE
from lbmux.tools.simulate.jet_steps import CONNECTION, RULES, STATE, TICK_S, WHEEL, advance, set_table, sweep_entries
from lbmux.tools.simulate.jet_trace import ADD, REMOVE, JetTrace, mean_length_s
from lbmux.tools.simulate.server_tables import MaglevTable, RendezvousTable, ServerTable
from lbmux.tools.simulate.slot_rule import ENTRY, NONE, SLOT

Rule = Literal["full", "jet", "lbmux"]
SWEEP_S = 5.0


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
        self._table = self._build(self._working, size)
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
            advance(
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

    def _build(self, servers: list[int], size: int) -> ServerTable:
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
        set_table(self._setting, self._slots, self._table.slots, time)
        self._state["changed"] = time

    def _sweep(self, time: float) -> None:
        marked = 1.0
        if self.rule.rule == "lbmux":
            sweep_entries(self._setting, self._state, self._slots, self._entries, self._connections, time)
            marked = float((self._slots["marked"] != 0).mean())
        elif self._union:
            marked = float((self._union.slots != self._table.slots).mean())
        self._samples.append((time, float(self._state["live"][0]), float(self._state["entries"][0]), marked))
