"""Runs one policy for flow entries through one scenario: two muxes, hosts with connections, tables over time.

Every policy gets the same packets and events.  ``Run.run`` returns what broke.  `flow_delivery` delivers packets. At
each sweep `flow_invariants` checks what the rule rests on; InvariantError says that it does not hold.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lbmux.codegen.compiled import compiled_nogil
from lbmux.tables import maglev
from lbmux.tools.simulate.flow_delivery import MUX, Count, deliver
from lbmux.tools.simulate.flow_invariants import BROKEN_RULES, InvariantError, check
from lbmux.tools.simulate.flow_policies import Policy
from lbmux.tools.simulate.flow_scenarios import BACKENDS, MOST_BACKENDS, MUXES, SLOTS, WARM_S, WEIGHT, Event, Scenario
from lbmux.tools.simulate.slot_rule import EARLIER, ENTRY, NONE, SLOT, change_slot, sweep


@dataclass(frozen=True)
class Outcome:
    """``counts``: by `Count`.  ``samples``: shape (sweeps, 3): time in s, entries by live flow, share of marked slots,
    from the first event on."""

    counts: NDArray[np.int64]
    samples: NDArray[np.float64]


class Run:
    """One policy in one scenario, from the first packet to the last."""

    def __init__(self, policy: Policy, scenario: Scenario) -> None:
        self.policy, self.scenario = policy, scenario
        self._setting = policy.settings()
        self._flows, self._packets = scenario.flows.copy(), scenario.packets
        self._weights = dict.fromkeys(range(BACKENDS), WEIGHT)
        self._alive, self._open = np.zeros(MOST_BACKENDS, np.uint8), np.zeros(MOST_BACKENDS, np.uint8)
        self._slots, self._muxes = np.zeros((MUXES, SLOTS), SLOT), np.zeros(MUXES, MUX)
        self._entries = np.zeros((MUXES, len(self._flows)), ENTRY)
        self._earlier = np.full((MUXES, EARLIER, SLOTS), NONE, np.int32)
        self._salt = 0
        self._counts = np.zeros(len(Count), np.int64)
        self._samples: list[tuple[float, float, float]] = []
        for mux in range(MUXES):
            self._start(mux)
        self._set_open()

    def run(self) -> Outcome:
        """Deliver all packets, with events and sweeps between them at their times; return what became of the flows."""
        at, times = 0, self._packets["time"]
        for time, event in self._timeline(float(times[-1])):
            end = int(np.searchsorted(times, time))
            self._deliver(at, end)
            at = end
            if event is None:
                self._sweep(time)
            else:
                self._apply(event)
        self._deliver(at, len(times))
        return Outcome(self._counts, np.array(self._samples).reshape(-1, 3))

    def _timeline(self, end: float) -> Iterator[tuple[float, Event | None]]:
        """Yield events and sweeps (None) with their times, in order."""
        sweeps = [(sweep_at, 1, None) for sweep_at in np.arange(0.0, end, self.policy.sweep_s).tolist()]
        events = [(event.time, 0, event) for event in self.scenario.events if event.time <= end]
        for time, _, event in sorted([*events, *sweeps], key=lambda item: item[:2]):
            yield time, event

    def _deliver(self, first: int, end: int) -> None:
        deliver(
            self._setting, self._packets[first:end], self._flows, self._entries, self._slots, self._muxes,
            self._earlier, self._alive, self._open, self._salt, self._counts,
        )  # fmt: skip

    def _start(self, mux: int) -> None:
        """Return a new mux, without marks, entries and earlier tables."""
        table = self._table()
        self._slots[mux]["current"] = self._slots[mux]["base"] = table
        self._slots[mux]["marked"], self._entries[mux]["target"] = 0, NONE
        self._muxes[mux] = (1, 0, -np.inf)

    def _table(self) -> NDArray[np.int32]:
        backends = sorted(self._weights)
        built = maglev.build([f"b{b}" for b in backends], [self._weights[b] for b in backends], SLOTS)
        table: NDArray[np.int32] = np.array(backends, np.int32)[built]
        return table

    def _set_open(self) -> None:
        for backend, weight in self._weights.items():
            self._alive[backend], self._open[backend] = 1, weight > 0

    def _apply(self, event: Event) -> None:
        if event.what == "lose":
            self._muxes[event.value]["live"] = 0
        elif event.what == "start":
            self._start(event.value)
        elif event.what == "reseed":
            self._salt = event.value
        else:
            self._change(event)

    def _change(self, event: Event) -> None:
        if event.what in ("remove", "die"):
            del self._weights[event.backend]
            self._alive[event.backend] = self._open[event.backend] = 0
            self._flows["gone"][self._flows["owner"] == event.backend] = 1
        else:
            values = {"add": WEIGHT, "drain": 0, "reweight": event.value}
            self._weights[event.backend] = values[event.what]
        self._set_open()
        table = self._table()
        for mux in np.flatnonzero(self._muxes["live"]):
            _change(self._setting, self._slots[mux], self._earlier[mux], self._muxes[mux : mux + 1], table, event.time)

    def _sweep(self, now: float) -> None:
        sums = np.zeros(3, np.int64)
        _sweep(self._setting, self._slots, self._entries, self._flows, self._muxes, now, sums)
        if now >= WARM_S:
            entries, marked, flows = sums.tolist()
            share = marked / SLOTS / int(self._muxes["live"].sum())
            self._samples.append((now, entries / max(flows, 1), 1.0 if self.policy.tracking == "all" else share))
        if self.policy.is_checked and not self.scenario.moves_flows:
            self._check(now)

    def _check(self, now: float) -> None:
        holds = np.zeros((MUXES, MOST_BACKENDS), np.uint8)
        rule, flow = check(
            self._setting, self._flows, self._entries, self._slots, self._muxes, self._alive, self._salt, holds, now
        )
        if rule:
            raise InvariantError(BROKEN_RULES[rule], flow, now)


@compiled_nogil
def _change(setting, slots, earlier, mux, table, now):  # type: ignore[no-untyped-def]
    for age in range(len(earlier) - 1, 0, -1):
        for at in range(len(slots)):
            earlier[age, at] = earlier[age - 1, at]
    for at in range(len(slots)):
        earlier[0, at] = slots[at].current
        change_slot(setting[0], slots[at], table[at], now)
    mux[0].changed, mux[0].tables = now, min(mux[0].tables + 1, len(earlier))


@compiled_nogil
def _sweep(setting, slots, entries, flows, muxes, now, counts):  # type: ignore[no-untyped-def]
    """Sweep each mux; add its entries and its marked slots, and then the live flows, to ``counts``."""
    for mux in range(len(muxes)):
        if not muxes[mux].live:
            continue
        sweep(setting[0], slots[mux], entries[mux], flows, now)
        for index in range(len(flows)):
            counts[0] += entries[mux, index].target != NONE
        for at in range(slots.shape[1]):
            counts[1] += slots[mux, at].marked != 0
    for index in range(len(flows)):
        is_live = flows[index].owner != NONE and not flows[index].gone
        counts[2] += is_live and now - flows[index].seen < setting[0].idle_tcp_s
