"""Entries compared with slots, and the whole rule on real tables: which flows keep their backend over changes."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from lbmux.config.models import Config
from lbmux.datapath.tables import NO_BASE
from lbmux.tables import flow_sweep, live_flows, slot_pairs, slot_states
from lbmux.tables.mux_tables import sizes_for
from lbmux.tables.snapshot import Snapshot
from lbmux.targets.native import Worker
from tests.datapath.craft import ACK, FIN, SYN
from tests.datapath.plain_packet import TCP, UDP
from tests.tables.test_mux_tables import Mux, backend, config, web

IDLE_TICKS = 900 * 1000 * 1000 * 1000 >> 20


class Clock:
    now = 1_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(Mux, "clock", staticmethod(clock))
    yield clock


def tracked(*numbers: int, weights: dict[int, int] | None = None, flows: str = "changed") -> Any:
    document = web(*numbers, flows=flows)
    for one in document["backends"]:
        one["weight"] = (weights or {}).get(int(one["name"][1:]), 1)
    return config(document)


def draining(configuration: Config) -> Config:
    """All backends without weight, as overrides may have it."""
    (service,) = configuration.services
    backends = tuple(one.model_copy(update={"weight": 0}) for one in service.backends)
    return configuration.model_copy(update={"services": (service.model_copy(update={"backends": backends}),)})


def sweep(mux: Mux, now: int) -> None:
    flow_sweep.sweep(mux.control, now)


def entries(mux: Mux) -> int:
    return int(np.count_nonzero(mux.tables.flows["state"]))


def test_the_flows_of_a_steady_pool_are_not_looked_at(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    mux = Mux(tracked(1, 2))
    monkeypatch.setattr(flow_sweep, "deviating", lambda *_: pytest.fail("the flow table was read"))
    sweep(mux, clock.now)


def test_a_steady_slot_s_flows_have_no_entry(clock: Clock) -> None:
    mux = Mux(tracked(1, 2, 3))
    first = mux.send(range(200), clock.now, flags=SYN)
    assert mux.send(range(200), clock.now + 1) == first
    assert entries(mux) == 0
    assert int(mux.tables.traffic["flows"].sum()) == 200, "new connections are counted by their SYN"


def test_connections_keep_their_backend_over_changes_without_having_had_an_entry(clock: Clock) -> None:
    mux = Mux(tracked(1, 2, 3))
    first = mux.send(range(300), clock.now, flags=SYN)
    for numbers in ((1, 2, 3, 4), (1, 2, 3, 4, 5), (1, 2, 3, 5, 4, 6)):
        mux.load(tracked(*numbers))
        clock.now += 10
    assert mux.send(range(300), clock.now) == first
    assert 0 < entries(mux) < 300, "only those whose slots have changed"


def test_a_syn_goes_to_the_base_for_as_long_as_it_may_be_a_retransmission(clock: Clock) -> None:
    mux = Mux(tracked(1, 2))
    before = mux.send(range(300), clock.now, flags=SYN)
    mux.load(tracked(1, 2, 3))
    assert mux.send(range(300), clock.now, flags=SYN) == before
    mux.tables.flows["state"] = 0
    assert 3 in mux.send(range(300), clock.now + 3000, flags=SYN)


def test_slots_are_steady_again_after_one_idle_time(clock: Clock) -> None:
    mux = Mux(tracked(1, 2))
    mux.send(range(300), clock.now, flags=SYN)
    mux.load(tracked(1, 2, 3))
    mux.send(range(300), clock.now)
    sweep(mux, clock.now + IDLE_TICKS // 2)
    assert slot_pairs.changing(mux.control.slots.pairs(0)).size
    alive = mux.send(range(20), clock.now + IDLE_TICKS // 2)
    for _ in range(2):
        sweep(mux, clock.now + IDLE_TICKS + 1)
    pairs = mux.control.slots.pairs(0)
    assert set(pairs["base"][slot_pairs.is_marked(pairs)].tolist()) == {NO_BASE}
    assert mux.send(range(20), clock.now + IDLE_TICKS + 2) == alive
    for _ in range(2):
        sweep(mux, clock.now + 3 * IDLE_TICKS)
    assert not slot_pairs.is_marked(mux.control.slots.pairs(0)).any()
    assert entries(mux) == 0


def test_after_a_change_of_size_connections_keep_their_backend(clock: Clock) -> None:
    mux = Mux(tracked(1, 2, 3))
    before = mux.send(range(300), clock.now, flags=SYN)
    mux.load(tracked(1, 2, 3, 4))
    configuration = tracked(1, 2, 3, 4)
    mux.load(configuration.model_copy(update={"maglev": configuration.maglev.model_copy(update={"size": 509})}))
    assert mux.send(range(300), clock.now) == before
    for _ in range(2):
        sweep(mux, clock.now + IDLE_TICKS + 1)
    assert mux.tables.services[mux.tables.active, 0]["former"] == 0xFFFFFFFF


def test_changes_before_the_first_packet_leave_every_slot_steady(clock: Clock) -> None:
    mux = Mux(tracked(1, 2))
    mux.load(tracked(1, 2, 3))
    configuration = tracked(1, 2, 3, 4)
    mux.load(configuration.model_copy(update={"maglev": configuration.maglev.model_copy(update={"size": 509})}))
    mux.control.start()
    assert not mux.control.slots.is_marked()
    assert mux.tables.services[mux.tables.active, 0]["former"] == 0xFFFFFFFF


@pytest.mark.parametrize("has_one", [False, True], ids=["none is up at the start", "one is up at the start"])
def test_backends_that_come_up_one_by_one_leave_every_slot_steady(clock: Clock, has_one: bool) -> None:
    first = tracked(1, 2, 3, weights={2: 0, 3: 0})
    mux = Mux(first if has_one else draining(first))
    mux.control.start()
    mux.load(first)
    clock.now += slot_states.COMING_UP_TICKS // 2
    mux.load(tracked(1, 2, 3, weights={3: 0}))
    mux.load(tracked(1, 2, 3))
    assert not mux.control.slots.is_marked()


def test_backends_of_a_new_service_come_up_without_marks(clock: Clock) -> None:
    web = tracked(1).services[0]
    mux = Mux(tracked(1))
    mux.control.start(has_flows=True)
    for numbers in ((2,), (2, 3)):
        new = tracked(*numbers).services[0].model_copy(update={"name": "new", "port": 81})
        mux.load(tracked(1).model_copy(update={"services": (web, new)}))
    assert not mux.control.slots.is_marked()


@pytest.mark.parametrize("weights", [{1: 2}, {3: 0}], ids=["another weight", "a drain"])
def test_other_changes_are_marked_while_backends_come_up(clock: Clock, weights: dict[int, int]) -> None:
    mux = Mux(tracked(1, 2, 3))
    mux.control.start()
    mux.load(tracked(1, 2, 3, weights=weights))
    marked = slot_pairs.changing(mux.control.slots.pairs(0))
    assert len(marked)
    mux.load(tracked(1, 2, 3, 4, weights=weights))
    assert set(marked) <= set(np.flatnonzero(slot_pairs.is_marked(mux.control.slots.pairs(0))))


def test_a_backend_that_comes_back_is_marked_while_others_come_up(clock: Clock) -> None:
    mux = Mux(tracked(1, 2, 3, weights={3: 0}))
    mux.control.start()
    mux.load(tracked(1, 2, 3))
    assert not mux.control.slots.is_marked()
    mux.load(tracked(1, 2, 3, weights={2: 0}))
    mux.load(tracked(1, 2, 3, weights={2: 1}))
    assert mux.control.slots.is_marked()


def test_a_backend_of_a_table_that_was_lost_is_marked_while_others_come_up(clock: Clock) -> None:
    mux = Mux(tracked(1, 2))
    mux.control.start()
    mux.load(draining(tracked(1, 2)))
    mux.load(tracked(1, 2, weights={2: 0}))
    pairs = mux.control.slots.pairs(0)
    pairs["base"] = pairs["backend"]  # as after a short idle time
    mux.load(tracked(1, 2))
    assert mux.control.slots.is_marked()


def test_a_service_that_has_come_up_marks_its_changes(clock: Clock) -> None:
    mux = Mux(draining(tracked(1, 2)))
    mux.control.start()
    mux.load(tracked(1, 2, weights={2: 0}))
    clock.now += slot_states.COMING_UP_TICKS + 1
    sweep(mux, clock.now)
    mux.load(tracked(1, 2))
    assert mux.control.slots.is_marked()


def test_a_mux_that_has_adopted_tables_marks_changes_at_once(clock: Clock) -> None:
    mux = Mux(tracked(1, 2))
    mux.control.start(has_flows=True)
    mux.load(tracked(1, 2, 3))
    assert mux.control.slots.is_marked()


def test_a_drained_backend_has_flows_until_its_slots_are_settled(clock: Clock) -> None:
    """Its connections have no entry, so the base of the changing slots is what says that there may be some."""
    mux = Mux(tracked(1, 2, 3))
    mux.load(tracked(1, 2, 3, weights={3: 0}))
    assert live_flows.without_flows(Snapshot.of_mux(mux.control), [("web", "h3")]) == set()
    sweep(mux, clock.now + IDLE_TICKS + 1)
    assert live_flows.without_flows(Snapshot.of_mux(mux.control), [("web", "h3")]) == {("web", "h3")}


def test_the_last_backends_are_not_drained_while_the_former_table_has_their_flows(clock: Clock) -> None:
    """They have no table any more, and their connections have no entries."""
    mux = Mux(tracked(1, 2))
    mux.send(range(100), clock.now, flags=SYN)
    mux.load(draining(tracked(1, 2)))
    both = {("web", "h1"), ("web", "h2")}
    assert live_flows.without_flows(Snapshot.of_mux(mux.control), both) == set()
    sweep(mux, clock.now + IDLE_TICKS + 1)
    assert live_flows.without_flows(Snapshot.of_mux(mux.control), both) == both


def test_connections_outlive_the_table_when_the_last_backend_drains(clock: Clock) -> None:
    """The former table says where they are; new ones find no backend."""
    mux = Mux(tracked(1, 2))
    before = mux.send(range(100), clock.now, flags=SYN)
    mux.load(draining(tracked(1, 2)))
    clock.now += 5000
    assert mux.send(range(100), clock.now) == before
    assert mux.send(range(100, 200), clock.now, flags=SYN) == [-1] * 100
    mux.load(tracked(1, 2, 3))
    assert mux.send(range(100), clock.now + 1) == before
    assert mux.control.slots.former


def test_a_table_that_comes_back_late_finds_every_connection_in_an_entry(clock: Clock) -> None:
    """The former table is given up one idle time after the last backend was drained."""
    mux = Mux(tracked(1, 2))
    before = mux.send(range(100), clock.now, flags=SYN)
    mux.load(draining(tracked(1, 2)))
    for _ in range(2):
        for _ in range(5):
            clock.now += 250_000
            assert mux.send(range(100), clock.now) == before
            sweep(mux, clock.now)
        assert not mux.control.slots.former
        mux.load(tracked(1, 2, 3, 4))
    assert mux.send(range(100), clock.now) == before
    assert 0 < entries(mux) < 100


@pytest.mark.parametrize("flows", ["all", "changed"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_flows_of_a_drained_backend_keep_it_on_another_cpu(clock: Clock, protocol: str, flows: str) -> None:
    """The interrupts of a network card may be moved to another CPU at any time after the drain."""
    three = web(1, 2, 3, flows=flows) | {"protocol": protocol}
    first, drained = config(three), config(three | {"backends": [backend(1), backend(2), backend(3, 0)]})
    mux = Mux(first, replace(sizes_for(first), workers=3))
    number = {"tcp": TCP, "udp": UDP}[protocol]
    before = mux.send(range(60), clock.now, flags=SYN, protocol=number)
    mux.send(range(60), clock.now, protocol=number)
    mux.load(drained)
    for _ in range(5):
        clock.now += 250_000
        assert mux.send(range(60), clock.now, protocol=number) == before
        sweep(mux, clock.now)
    mux.worker = Worker(mux.tables, 1)
    assert mux.send(range(60), clock.now, protocol=number) == before
    assert 3 in before


def test_a_service_that_tracks_all_flows_keeps_its_entries(clock: Clock) -> None:
    mux = Mux(tracked(1, 2, flows="all"))
    mux.send(range(100), clock.now, flags=SYN)
    assert flow_sweep.drop_needless(mux.tables) == 0
    assert entries(mux) == 100
    mux.load(tracked(1, 2))
    assert flow_sweep.drop_needless(mux.tables) == 100


def test_a_process_that_adopts_the_tables_adopts_the_bases(clock: Clock) -> None:
    mux = Mux(tracked(1, 2, 3))
    before = mux.send(range(300), clock.now, flags=SYN)
    mux.load(tracked(1, 2, 3, 4))
    mux.restart()
    mux.load(tracked(1, 2, 3, 4))
    assert mux.send(range(300), clock.now) == before
    sweep(mux, clock.now + 2 * IDLE_TICKS)
    assert not slot_pairs.changing(mux.control.slots.pairs(0)).size


@dataclass
class Flows:
    """Connections with packets at random times, and the backend that each began with."""

    mux: Mux
    pick: random.Random
    live: dict[int, int] = field(default_factory=dict)
    seen: dict[int, int] = field(default_factory=dict)
    moved: int = 0
    packets: int = 0
    number: int = 0

    def turn(self, now: int, up: set[int]) -> None:
        """Begin some connections, end some, and send a packet of many; those of a removed backend are forgotten."""
        for client in [c for c, number in self.live.items() if number not in up]:
            del self.live[client]
        for client in self.pick.sample(sorted(self.live), min(60, len(self.live))):
            flags = FIN | ACK if self.pick.random() < 0.1 else ACK
            (number,) = self.mux.send(range(client, client + 1), now, flags=flags)
            self.packets += 1
            self.moved += number != self.live[client]
            self.seen[client] = now
            if flags & FIN:
                del self.live[client]
        for client in range(self.number, self.number + 20):
            (self.live[client],) = self.mux.send(range(client, client + 1), now, flags=SYN)
            assert self.mux.send(range(client, client + 1), now) == [self.live[client]]
            self.seen[client] = now
        self.number += 20
        for client in [c for c in self.live if now - self.seen[c] > IDLE_TICKS * 9 // 10]:
            del self.live[client]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_no_connection_moves_over_random_changes_and_sweeps(clock: Clock, seed: int) -> None:
    """The model of docs/flow-state.md, on the tables and the steps themselves: without a second chance."""
    pick, numbers = random.Random(seed), [1, 2, 3, 4, 5]
    mux = Mux(tracked(*numbers))
    flows, marked = Flows(mux, pick), 0
    for _ in range(60):
        clock.now += pick.choice((1_000, 5_000, 60_000, 200_000))
        if pick.random() < 0.4:
            what, number = pick.choice(("add", "remove", "weight")), pick.choice(numbers)
            if what == "add" and len(numbers) < 8:
                numbers.append(next(n for n in range(1, 10) if n not in numbers))
            elif what == "remove" and len(numbers) > 3:
                numbers.remove(number)
            mux.load(tracked(*numbers, weights={number: pick.choice((0, 1, 2, 5))}))
        flows.turn(clock.now, set(numbers))
        sweep(mux, clock.now)
        marked = max(marked, int(slot_pairs.is_marked(mux.control.slots.pairs(0)).sum()))
    assert flows.packets > 1000 and marked > 50
    assert flows.moved == 0
