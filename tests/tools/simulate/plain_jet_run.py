"""The plain twin of JET's compiled run: lists and dictionaries, a packet at a time."""

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lbmux.tools.simulate.flow_policies import BASE
from lbmux.tools.simulate.jet_run import SWEEP_S, JetRule
from lbmux.tools.simulate.jet_steps import TICK_S, WHEEL
from lbmux.tools.simulate.jet_trace import ADD, LONG_S, SHORT, SHORT_S, SHORTEST_S, USUAL, USUAL_S, JetTrace
from lbmux.tools.simulate.random_numbers import GOLDEN
from lbmux.tools.simulate.slot_rule import FIN, MID, SYN
from tests.tools.simulate.plain_flow_model import Entry, PlainMux
from tests.tools.simulate.test_server_tables import PlainMaglev, PlainRendezvous

MASK = (1 << 64) - 1


def mix(value: int) -> int:
    mixed = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & MASK
    return mixed ^ mixed >> 31


@dataclass
class Connection:
    number: int
    key: int
    end: int
    slot: int
    owner: int | None = None
    packets: int = 0

    def drawn(self, number: int) -> float:
        return (mix(self.key + number * GOLDEN & MASK) >> 11) / (1 << 53)

    def length_s(self) -> float:
        kind, drawn = self.drawn(1), self.drawn(2)
        if kind < SHORT:
            return SHORTEST_S * math.exp(drawn * math.log(SHORT_S / SHORTEST_S))
        return -(USUAL_S if kind < USUAL else LONG_S) * math.log(1 - drawn)


class PlainJetRun:
    """``entries``: connections with an entry, the least recently used first."""

    def __init__(self, trace: JetTrace, rule: JetRule, size: int) -> None:
        self.trace, self.rule, self.size = trace, rule, size
        self.changes, self.rng = trace.changes(), np.random.default_rng([trace.seed, 3])
        every = trace.servers + trace.horizon + sum(what == ADD for _, what in self.changes)
        self.seeds = self.rng.integers(0, 1 << 64, every, np.uint64).tolist()
        self.working, self.next = list(range(trace.servers)), trace.servers
        self.alive = set(range(every))
        self.seed = int(self.rng.integers(0, 1 << 64, 1, np.uint64)[0])
        table = PlainMaglev if rule.table == "maglev" else PlainRendezvous
        self.table = table(self.seeds, self.working, size)
        self.union = PlainRendezvous(self.seeds, list(range(trace.servers + trace.horizon)), size)
        self.mux = PlainMux(replace(BASE, settle_s=rule.idle_s), self.table.slots())
        self.entries: OrderedDict[int, int] = OrderedDict()
        self.due: dict[int, list[Connection]] = {}
        self.broken = self.lost = self.packets = 0
        self.samples: list[tuple[int, int]] = []
        self.live = 0

    def run(self) -> None:
        arrivals, tick = self.trace.arrivals().tolist(), 0
        count = math.ceil(self.trace.seconds / SWEEP_S)
        sweeps = [(min(number * SWEEP_S, self.trace.seconds), None) for number in range(1, count + 1)]
        done = 0
        for time, what in sorted([*self.changes, *sweeps], key=lambda item: item[0]):
            for now in range(tick, math.ceil(time / TICK_S)):
                for connection in self.due.pop(now, []):
                    self.packet(connection, FIN if now >= connection.end else MID, now)
                while done < len(arrivals) and arrivals[done] < (now + 1) * TICK_S:
                    done += 1
                    self.begin(done, now)
            tick = max(tick, math.ceil(time / TICK_S))
            self.sweep(time) if what is None else self.change(what, time)

    def begin(self, number: int, now: int) -> None:
        key = mix(self.seed + number * GOLDEN & MASK)
        connection = Connection(number, key, 0, (key >> 32) * self.size >> 32)
        connection.end = now + int(connection.length_s() / TICK_S) + 1
        self.live += 1
        self.packet(connection, SYN, now)

    def packet(self, connection: Connection, what: int, now: int) -> None:
        if connection.owner is not None and connection.owner not in self.alive:
            self.lost += 1
            return self.release(connection)
        self.packets += 1
        target = self.target(connection, what, now * TICK_S)
        if what == SYN:
            connection.owner = target
        elif target != connection.owner:
            self.broken += 1
            return self.release(connection)
        elif what == FIN:
            return self.release(connection)
        connection.packets += 1
        gap_s = -self.trace.gap_s * math.log(1 - connection.drawn(2 + connection.packets))
        due = max(now + 1, min(now + min(1 + int(gap_s / TICK_S), WHEEL - 1), connection.end))
        self.due.setdefault(due, []).insert(0, connection)
        return None

    def release(self, connection: Connection) -> None:
        self.live -= 1
        self.entries.pop(connection.number, None)
        self.mux.entries.get(connection.slot, {}).pop(connection.number, None)

    def target(self, connection: Connection, what: int, now: float) -> int:
        if self.rule.rule == "lbmux":
            return self.by_change(connection, what, now)
        number, slot = connection.number, connection.slot
        if number in self.entries:
            self.entries.move_to_end(number)
            return self.entries[number]
        target = self.mux.current[slot]
        if self.rule.rule == "full" or self.union.slots()[slot] != target:
            self.enter(number, target)
        return target

    def by_change(self, connection: Connection, what: int, now: float) -> int:
        number, slot, mux = connection.number, connection.slot, self.mux
        if not mux.tracks(slot, "tcp"):
            return mux.current[slot]
        entry = mux.find(number, slot, what, self.alive, now)
        if entry is None:
            self.entries.pop(number, None)
            target = mux.guess(slot, "tcp", what, self.alive, self.alive, now)
            if mux.enters(slot, "tcp"):
                mux.entries.setdefault(slot, {})[number] = Entry(target, now, "tcp")
                self.enter(number, slot)
            return target
        entry.seen = now
        self.entries.move_to_end(number)
        return entry.target

    def enter(self, number: int, value: int) -> None:
        if len(self.entries) >= self.rule.limit:
            last, slot = self.entries.popitem(last=False)
            if self.rule.rule == "lbmux":
                del self.mux.entries[slot][last]
        self.entries[number] = value

    def sweep(self, time: float) -> None:
        if self.rule.rule == "lbmux":
            self.mux.sweep(time)
            left = {number for of_slot in self.mux.entries.values() for number in of_slot}
            for number in [number for number in self.entries if number not in left]:
                del self.entries[number]
        self.samples.append((self.live, len(self.entries)))

    def change(self, what: Any, time: float) -> None:
        if what == ADD:
            self.working.append(self.next)
            self.table.join(self.next)
            self.next += 1
            if self.next + self.trace.horizon <= len(self.seeds):
                self.union.join(self.next + self.trace.horizon - 1)
        else:
            server = self.working.pop(int(self.rng.integers(len(self.working))))
            self.alive.discard(server)
            self.table.leave(server)
            self.union.leave(server)
        self.mux.change(self.table.slots(), time)
