"""Runs one policy for flow entries through one scenario: two muxes, hosts with connections, tables over time.

Every policy gets the same packets and events.  ``Run.run`` returns what broke.  At each sweep it checks what the rule
rests on (`_check`) and raises InvariantError if it does not hold.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from lbmux.codegen.compiled import compiled_nogil
from lbmux.datapath.memory import step
from lbmux.errors import LbmuxError
from lbmux.tables import maglev
from lbmux.tools.simulate.flow_policies import Policy
from lbmux.tools.simulate.flow_scenarios import BACKENDS, MOST_BACKENDS, MUXES, SLOTS, WARM_S, WEIGHT, Event, Scenario
from lbmux.tools.simulate.slot_rule import (
    EARLIER,
    ENTRY,
    FIN,
    NONE,
    SLOT,
    SYN,
    TCP,
    UDP,
    change_slot,
    enter,
    enters,
    find,
    guess,
    is_idle,
    mark,
    sweep,
    tracks,
)

MUX = np.dtype([("live", "u1"), ("tables", "i4"), ("changed", "f8")], align=True)
"""``tables``: the number of earlier tables. ``changed``: the time of the last change."""


class Count(IntEnum):
    """The counters; each is an index in `Outcome.counts`."""

    TCP_BROKEN = 0
    TCP_BROKEN_SLEPT = 1
    SECOND_SYN = 2
    """Connections whose second SYN went to another backend than the first, whose SYN-ACK the client gets."""
    UDP_BROKEN = 3
    UDP_BROKEN_SLEPT = 4
    UDP_TO_DRAINED = 5
    SYN_TO_DRAINED = 6
    SECOND_CHANCES = 7
    SECOND_CHANCES_SLEPT = 8
    HOPS = 9


BROKEN_RULES = (
    "", "a flow is elsewhere, and its slot is steady", "an entry names another backend",
    "a flow is elsewhere, and has no entry", "a flow without an entry is not at its slot's base",
    "a backend counts as drained, and has a flow", "a steady slot has a base",
)  # fmt: skip


class InvariantError(LbmuxError):
    """``rule`` did not hold for ``flow`` at ``time_s``."""

    rule: str
    flow: int
    time_s: float

    def __str__(self) -> str:
        return f"at {self.time_s:.1f} s, flow {self.flow}: {self.rule}"


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
        _deliver(
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
        found = np.zeros(3, np.int64)
        _sweep(self._setting, self._slots, self._entries, self._flows, self._muxes, now, found)
        if now >= WARM_S:
            entries, marked, flows = found.tolist()
            share = marked / SLOTS / int(self._muxes["live"].sum())
            self._samples.append((now, entries / max(flows, 1), 1.0 if self.policy.tracking == "all" else share))
        if self.policy.is_checked and not self.scenario.moves_flows:
            self._check(now)

    def _check(self, now: float) -> None:
        holds = np.zeros((MUXES, MOST_BACKENDS), np.uint8)
        rule, flow = _check(
            self._setting, self._flows, self._entries, self._slots, self._muxes, self._alive, self._salt, holds, now
        )
        if rule:
            raise InvariantError(BROKEN_RULES[rule], flow, now)


@step
def _mux_of(flow, salt, muxes):  # type: ignore[no-untyped-def]
    """Return the mux that routers send the flow to."""
    live = 0
    for mux in range(len(muxes)):
        live += muxes[mux].live
    wanted = (((flow + 1) * (2 * salt + 1)) >> salt) % live
    for mux in range(len(muxes)):
        wanted -= muxes[mux].live
        if wanted < 0:
            return mux
    return 0


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
def _deliver(setting, packets, flows, entries, slots, muxes, earlier, alive, is_open, salt, counts):  # type: ignore[no-untyped-def]
    """Deliver packets in order."""
    for index in range(len(packets)):
        packet, flow = packets[index], flows[packets[index].flow]
        if flow.gone and packet.what != SYN:
            continue
        mux = _mux_of(packet.flow, salt, muxes)
        slot, entry = slots[mux, flow.slot], entries[mux, packet.flow]
        newest = earlier[mux, 0, flow.slot] if muxes[mux].tables else NONE
        changed = muxes[mux].changed
        target = _target(setting[0], slot, entry, newest, flow, packet, alive, is_open, changed)
        idle_s = setting[0].idle_tcp_s if flow.kind == TCP else setting[0].idle_udp_s
        if packet.what == SYN:
            flow.slept = 0
        elif flow.began and packet.time - flow.seen > idle_s:
            flow.slept = 1
        if packet.what == SYN or flow.owner == NONE:
            _begin(flow, packet, target, alive, is_open, counts)
        elif not alive[flow.owner]:
            flow.gone = 1
        elif target != flow.owner:
            _misdelivered(setting[0], slots[mux], entry, earlier, mux, muxes, flow, packet, target, alive, counts)
        flow.seen, flow.began = packet.time, 1
        if packet.what == FIN:
            flow.gone, flow.owner = 1, NONE


@step
def _target(setting, slot, entry, newest, flow, packet, alive, is_open, changed):  # type: ignore[no-untyped-def]
    """Return the backend that a mux sends the packet to, with an entry where the policy wants one."""
    if not tracks(setting, slot, flow.kind):
        return slot.current
    target = find(setting, entry, packet.what, alive, packet.time)
    if target == NONE:
        target = guess(setting, slot, newest, flow.kind, packet.what, alive, is_open, changed, packet.time)
        if not enters(setting, slot, flow.kind):
            return target
        enter(entry, target, flow.kind, packet.time)
    entry.seen = packet.time
    if packet.what == FIN:
        entry.closing = 1
    return target


@step
def _begin(flow, packet, target, alive, is_open, counts):  # type: ignore[no-untyped-def]
    """The first packet of a connection, or a SYN again."""
    flow.gone = 0
    owner = flow.owner
    if packet.late and owner != NONE and owner != target and alive[owner]:
        counts[Count.SECOND_SYN] += 1
        flow.gone = 1
    elif packet.what == SYN and not is_open[target]:
        counts[Count.SYN_TO_DRAINED] += 1
    elif flow.kind == UDP and not is_open[target]:
        counts[Count.UDP_TO_DRAINED] += 1
    flow.owner = target


@step
def _misdelivered(setting, slots, entry, earlier, mux, muxes, flow, packet, target, alive, counts):  # type: ignore[no-untyped-def]
    """A packet has reached a backend that does not have its flow."""
    if flow.kind == UDP:
        counts[Count.UDP_BROKEN_SLEPT if flow.slept else Count.UDP_BROKEN] += 1
        flow.owner = target
    elif not setting.second_chance:
        counts[Count.TCP_BROKEN_SLEPT if flow.slept else Count.TCP_BROKEN] += 1
        flow.gone = 1
    else:
        counts[Count.SECOND_CHANCES_SLEPT if flow.slept else Count.SECOND_CHANCES] += 1
        counts[Count.HOPS] += _hops(setting, slots[flow.slot], earlier, mux, muxes, flow, target, alive)
        mark(slots[flow.slot], packet.time)
        enter(entry, flow.owner, flow.kind, packet.time)


@step
def _hops(setting, slot, earlier, mux, muxes, flow, first, alive):  # type: ignore[no-untyped-def]
    """Return the number of hosts asked until one has the connection: current, base, earlier tables, all."""
    known = min(setting.history, muxes[mux].tables)
    hops = 0
    for rank in range(2 + known + len(alive)):
        asked = _candidate(slot, earlier, mux, flow.slot, known, rank)
        is_new = asked != NONE and asked != first and alive[asked] != 0
        for before in range(rank):
            if is_new and _candidate(slot, earlier, mux, flow.slot, known, before) == asked:
                is_new = False
        if is_new:
            hops += 1
            if asked == flow.owner:
                return hops
    return hops


@step
def _candidate(slot, earlier, mux, at, known, rank):  # type: ignore[no-untyped-def]
    """Return the backend that is asked at a rank, or NONE."""
    if rank == 0:
        return slot.current
    if rank == 1:
        return slot.base
    if rank < 2 + known:
        return earlier[mux, rank - 2, at]
    return rank - 2 - known


@compiled_nogil
def _sweep(setting, slots, entries, flows, muxes, now, found):  # type: ignore[no-untyped-def]
    """Sweep each mux; add its entries and its marked slots, and then the live flows, to ``found``."""
    for mux in range(len(muxes)):
        if not muxes[mux].live:
            continue
        sweep(setting[0], slots[mux], entries[mux], flows, now)
        for index in range(len(flows)):
            found[0] += entries[mux, index].target != NONE
        for at in range(slots.shape[1]):
            found[1] += slots[mux, at].marked != 0
    for index in range(len(flows)):
        is_live = flows[index].owner != NONE and not flows[index].gone
        found[2] += is_live and now - flows[index].seen < setting[0].idle_tcp_s


@compiled_nogil
def _check(setting, flows, entries, slots, muxes, alive, salt, holds, now):  # type: ignore[no-untyped-def]
    """Return which of BROKEN_RULES was found, and the flow; (0, 0) if all hold.

    Left out: UDP, and flows that have slept longer than the idle time.
    """
    for mux in range(len(muxes)):
        if not _find_holders(slots[mux], entries[mux], holds[mux]):
            return 6, 0
    for index in range(len(flows)):
        flow = flows[index]
        if flow.owner == NONE or flow.gone or flow.slept or flow.kind == UDP:
            continue
        if not alive[flow.owner] or now - flow.seen > setting[0].idle_tcp_s:
            continue
        mux = _mux_of(index, salt, muxes)
        broken = _broken_rule(setting[0], slots[mux, flow.slot], entries[mux, index], flow.owner, holds[mux], now)
        if broken:
            return broken, index
    return 0, 0


@step
def _find_holders(slots, entries, holds):  # type: ignore[no-untyped-def]
    """Set ``holds`` for backends that a drain has to wait for; return whether steady slots have no base."""
    for at in range(len(slots)):
        if not slots[at].marked and slots[at].base != slots[at].current:
            return False
        if slots[at].marked and slots[at].base != NONE:
            holds[slots[at].base] = 1
    for index in range(len(entries)):
        if entries[index].target != NONE:
            holds[entries[index].target] = 1
    return True


@step
def _broken_rule(setting, slot, entry, owner, holds, now):  # type: ignore[no-untyped-def]
    """Return which rule a flow breaks that is at ``owner``, or 0."""
    if slot.current != owner and not holds[owner]:
        return 5
    if slot.marked == 0:
        return 0 if slot.current == owner else 1
    if entry.target != NONE and not is_idle(setting, entry, now):
        return 0 if entry.target == owner else 2
    if slot.base == NONE:
        return 0 if slot.current == owner else 3
    return 0 if slot.base == owner else 4
