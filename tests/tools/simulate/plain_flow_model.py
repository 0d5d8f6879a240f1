"""The plain twin of the compiled flow model: dictionaries, a packet at a time, as the rule is written down."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from lbmux.tables import maglev
from lbmux.tools.simulate.flow_delivery import Count
from lbmux.tools.simulate.flow_policies import IDLE_CLOSING_S, IDLE_TCP_S, IDLE_UDP_S, Policy
from lbmux.tools.simulate.flow_scenarios import BACKENDS, MUXES, SLOTS, WEIGHT, Event, Scenario
from lbmux.tools.simulate.slot_rule import EARLIER, FIN, NONE, SYN

KINDS = ("tcp", "udp")
IDLE_S = {"tcp": IDLE_TCP_S, "udp": IDLE_UDP_S, "closing": IDLE_CLOSING_S}


@dataclass
class Entry:
    target: int
    seen: float
    kind: str
    closing: bool = False

    def is_idle(self, now: float) -> bool:
        return now - self.seen > IDLE_S["closing" if self.closing else self.kind]


@dataclass
class PlainMux:
    policy: Policy
    current: list[int]
    base: list[int] = field(default_factory=list)
    marked_at: dict[int, float] = field(default_factory=dict)
    tables: list[list[int]] = field(default_factory=list)
    changed: float = float("-inf")
    entries: dict[int, dict[int, Entry]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.base = list(self.current)

    def change(self, table: list[int], now: float) -> None:
        self.tables = [self.current, *self.tables][:EARLIER]
        for slot, (before, after) in enumerate(zip(self.current, table, strict=True)):
            if before == after:
                continue
            if slot not in self.marked_at or self.base[slot] == NONE:
                self.base[slot], self.marked_at[slot] = before, now
            elif self.base[slot] == after and self.policy.exceptions:
                self.base[slot] = NONE
        self.current, self.changed = list(table), now

    def tracks(self, slot: int, kind: str) -> bool:
        always = self.policy.tracking == "all" or (kind == "udp" and self.policy.udp == "track all")
        return always or slot in self.marked_at

    def enters(self, slot: int, kind: str) -> bool:
        always = self.policy.tracking == "all" or (kind == "udp" and self.policy.udp == "track all")
        return always or self.base[slot] != NONE

    def find(self, flow: int, slot: int, what: int, alive: set[int], now: float) -> Entry | None:
        entry = self.entries.get(slot, {}).get(flow)
        if entry and (entry.is_idle(now) or entry.target not in alive or (what == SYN and entry.closing)):
            del self.entries[slot][flow]
            return None
        return entry

    def guess(self, slot: int, kind: str, what: int, alive: set[int], is_open: set[int], now: float) -> int:
        current, policy, age = self.current[slot], self.policy, now - self.changed
        newest = self.tables[0][slot] if self.tables else NONE
        if policy.tracking == "all":
            fits = kind == "tcp" and what != SYN and age <= IDLE_S["tcp"] and newest in alive
            return newest if fits else current
        before = self.base[slot]
        if slot not in self.marked_at or before == NONE:
            return current
        if kind == "tcp" and what != SYN and policy.guess == "newest":
            before = newest if self.tables else before
        if before not in alive:
            return current
        if kind == "udp":
            return before if policy.udp != "new at once" and age <= policy.udp_settle_s else current
        if what != SYN:
            return before
        return before if age <= policy.grace_s and (before in is_open or not policy.grace_open) else current

    def candidates(self, slot: int, first: int, alive: set[int]) -> list[int]:
        wanted = [self.current[slot], self.base[slot], *(t[slot] for t in self.tables[: self.policy.history])]
        return [one for one in dict.fromkeys([*wanted, *sorted(alive)]) if one in alive and one != first]

    def sweep(self, now: float) -> None:
        for of_slot in self.entries.values():
            for flow in [flow for flow, entry in of_slot.items() if entry.is_idle(now)]:
                del of_slot[flow]
        if self.policy.tracking == "all":
            return
        for slot, since in list(self.marked_at.items()):
            of_slot, current = self.entries.get(slot, {}), self.current[slot]
            if self.base[slot] not in (NONE, current) and now - since <= self.policy.settle_s:
                continue
            elsewhere = {flow: entry for flow, entry in of_slot.items() if entry.target != current}
            if self.policy.exceptions or not elsewhere:
                self.base[slot] = NONE
                if self.policy.udp != "track all":
                    self.entries[slot] = elsewhere
            if not elsewhere:
                del self.marked_at[slot]
                self.base[slot] = current


class PlainRun:
    def __init__(self, policy: Policy, scenario: Scenario) -> None:
        self.policy, self.scenario, self.salt = policy, scenario, 0
        self.weights = dict.fromkeys(range(BACKENDS), WEIGHT)
        self.alive = set(self.weights)
        self.muxes: list[PlainMux | None] = [PlainMux(policy, self.table()) for _ in range(MUXES)]
        self.owner: dict[int, int] = {}
        self.seen: dict[int, float] = {}
        self.gone, self.slept = set[int](), set[int]()
        self.counts = Counter[Count]()

    def table(self) -> list[int]:
        backends = sorted(self.weights)
        built = maglev.build([f"b{b}" for b in backends], [self.weights[b] for b in backends], SLOTS)
        return [backends[at] for at in built]

    def run(self) -> list[int]:
        events, sweep_at = list(self.scenario.events), 0.0
        for packet in self.scenario.packets:
            now = float(packet["time"])
            while sweep_at <= now or (events and events[0].time <= now):
                if events and events[0].time <= sweep_at:
                    self.apply(events.pop(0))
                else:
                    for mux in filter(None, self.muxes):
                        mux.sweep(sweep_at)
                    sweep_at += self.policy.sweep_s
            self.packet(now, int(packet["flow"]), int(packet["what"]), bool(packet["late"]))
        return [self.counts[count] for count in Count]

    def apply(self, event: Event) -> None:
        if event.what == "lose":
            self.muxes[event.value] = None
        elif event.what == "start":
            self.muxes[event.value] = PlainMux(self.policy, self.table())
        elif event.what == "reseed":
            self.salt = event.value
        else:
            if event.what in ("remove", "die"):
                del self.weights[event.backend]
                self.gone |= {flow for flow, owner in self.owner.items() if owner == event.backend}
            else:
                self.weights[event.backend] = {"add": WEIGHT, "drain": 0}.get(event.what, event.value)
            self.alive = set(self.weights)
            for mux in filter(None, self.muxes):
                mux.change(self.table(), event.time)

    def packet(self, now: float, flow: int, what: int, late: bool) -> None:
        if flow in self.gone and what != SYN:
            return
        row: Any = self.scenario.flows[flow]
        kind, slot = KINDS[row["kind"]], int(row["slot"])
        live = [mux for mux in self.muxes if mux is not None]
        mux = live[((flow + 1) * (2 * self.salt + 1) >> self.salt) % len(live)]
        is_open = {backend for backend, weight in self.weights.items() if weight}
        target, owner = self.target(mux, flow, slot, kind, what, now), self.owner.get(flow)
        if what == SYN:
            self.slept.discard(flow)
        elif now - self.seen.get(flow, now) > IDLE_S[kind]:
            self.slept.add(flow)
        if what == SYN or owner is None:
            self.gone.discard(flow)
            if late and owner is not None and owner != target and owner in self.alive:
                self.counts[Count.SECOND_SYN] += 1
                self.gone.add(flow)
            elif target not in is_open:
                self.counts[Count.SYN_TO_DRAINED if what == SYN else Count.UDP_TO_DRAINED] += (
                    kind == "udp" or what == SYN
                )
            self.owner[flow] = target
        elif owner not in self.alive:
            self.gone.add(flow)
        elif target != owner:
            self.misdelivered(mux, flow, slot, kind, target, now)
        self.seen[flow] = now
        if what == FIN:
            self.gone.add(flow)
            self.owner.pop(flow, None)

    def target(self, mux: PlainMux, flow: int, slot: int, kind: str, what: int, now: float) -> int:
        if not mux.tracks(slot, kind):
            return mux.current[slot]
        entry = mux.find(flow, slot, what, self.alive, now)
        if entry is None:
            is_open = {backend for backend, weight in self.weights.items() if weight}
            target = mux.guess(slot, kind, what, self.alive, is_open, now)
            if not mux.enters(slot, kind):
                return target
            entry = mux.entries.setdefault(slot, {})[flow] = Entry(target, now, kind)
        entry.seen = now
        entry.closing |= what == FIN
        return entry.target

    def misdelivered(self, mux: PlainMux, flow: int, slot: int, kind: str, target: int, now: float) -> None:
        slept, owner = flow in self.slept, self.owner[flow]
        if kind == "udp":
            self.counts[Count.UDP_BROKEN_SLEPT if slept else Count.UDP_BROKEN] += 1
            self.owner[flow] = target
        elif not self.policy.second_chance:
            self.counts[Count.TCP_BROKEN_SLEPT if slept else Count.TCP_BROKEN] += 1
            self.gone.add(flow)
        else:
            self.counts[Count.SECOND_CHANCES_SLEPT if slept else Count.SECOND_CHANCES] += 1
            self.counts[Count.HOPS] += mux.candidates(slot, target, self.alive).index(owner) + 1
            if slot not in mux.marked_at:
                mux.marked_at[slot], mux.base[slot] = now, NONE
            mux.entries.setdefault(slot, {})[flow] = Entry(owner, now, kind)
