"""Which VIP becomes a black hole, decided from usage that is made up."""

from ipaddress import ip_address
from typing import Any

import pytest

from lbmux.addresses import Address
from lbmux.config.models import BlackHole
from lbmux.metrics.black_holes import FORGIVEN_S, BlackHoles, Change, Usage

A, B, C = (ip_address(f"192.0.2.{number}") for number in (1, 2, 3))
CAPACITY, WINDOW_S = 1000, 0.1
RULES = BlackHole(after_s=1.0, first_s=10, longest_s=60)


def syns(per_s: float, go_on: float = 0.0) -> Usage:
    count = per_s * WINDOW_S
    return Usage(begins=count, begun=count / 16, completed=count / 16 * go_on, sources=100)


def datagrams(per_s: float, follows: float = 0.0, sources: float = 100) -> Usage:
    count = per_s * WINDOW_S
    return Usage(others=count, judged=count / 16, follows=count / 16 * follows, sources=sources)


def clients(per_s: float) -> Usage:
    """Packets of real connections: one in four is a SYN."""
    return syns(per_s / 4, 1.0) + datagrams(per_s * 3 / 4, 1.0)


class Mux:
    def __init__(self, *vips: Address, rules: BlackHole = RULES, **weights: int) -> None:
        self.holes, self.now, self.log = BlackHoles(), 1000.0, list[tuple[float, Change]]()
        self.weights = dict.fromkeys(vips or (A, B, C), 1)
        self.holes.configure(rules, CAPACITY, self.weights)

    def run(self, seconds: float, usage: dict[Address, Usage], loses: bool = False) -> list[Change]:
        """Let it come for some time; return what changes."""
        changes = list[Change]()
        for _ in range(round(seconds / WINDOW_S)):
            self.now += WINDOW_S
            changes += self.holes.read(self.now, WINDOW_S, usage, loses)
        return changes

    @property
    def vips(self) -> set[Address]:
        return {*self.holes.in_force}


def test_a_flooded_vip_is_a_black_hole_after_the_stated_time_until_the_flood_ends() -> None:
    mux = Mux()
    assert not mux.run(0.9, {A: syns(9000), B: clients(100)})
    (begins,) = mux.run(0.2, {A: syns(9000), B: clients(100)})
    assert (begins.vip, begins.begins, mux.vips) == (A, True, {A}) and "9000 packets per second, 900" in begins.reason
    assert not mux.run(3, {A: syns(9000), B: clients(100)})
    (ends,) = mux.run(0.8, {A: syns(10), B: clients(100)})
    assert (ends.vip, ends.begins, mux.vips) == (A, False, set()) and "the flood is over" in ends.reason


@pytest.mark.parametrize(
    "flooded",
    [
        syns(9000), datagrams(9000), datagrams(9000, follows=0.1), datagrams(9000, follows=1.0, sources=3),
        syns(9000, go_on=0.1), syns(8000) + clients(2000), syns(2000) + datagrams(7000) + clients(200),
    ],
    ids=["SYNs", "datagrams", "few follow", "few sources", "few go on", "SYNs and clients", "all kinds and clients"],
)  # fmt: skip
def test_a_flood_is_one_whatever_it_consists_of(flooded: Usage) -> None:
    mux = Mux()
    mux.run(2, {A: flooded, B: clients(100)})
    assert mux.vips == {A}


@pytest.mark.parametrize(
    "usage",
    [
        {A: clients(9000), B: clients(100)},
        {A: datagrams(9000, follows=0.7), B: clients(100)},
        {A: syns(8000, go_on=0.4) + datagrams(1000, follows=1.0), B: clients(100)},
        {A: syns(9000), B: syns(9000), C: clients(100)},
        {A: syns(900)},
        {A: syns(1200), B: clients(600)},
        {},
    ],
    ids=[
        "flash crowd",
        "crowd of datagrams",
        "most SYNs of a crowd dropped",
        "two VIPs",
        "no overload",
        "not three times its share",
        "nothing",
    ],
)
def test_there_is_no_black_hole_without_one_vip_that_is_flooded(usage: dict[Address, Usage]) -> None:
    mux = Mux()
    assert not mux.run(10, usage) and not mux.vips


def test_the_last_vip_is_never_a_black_hole() -> None:
    mux = Mux(A)
    assert not mux.run(5, {A: syns(9000)})
    mux = Mux(A, B)
    mux.run(2, {A: syns(9000)})
    assert mux.vips == {A}
    mux.run(5, {A: syns(9000), B: syns(9000)})
    assert mux.vips == {A}


def test_each_relapse_doubles_the_time_up_to_the_longest() -> None:
    mux, lengths, flood = Mux(), [], {A: syns(9000), B: clients(100)}
    for _ in range(5):
        mux.run(1.5, flood)
        (one,) = mux.holes.in_force.values()
        lengths.append(one.until - one.since)
        (ends,) = mux.run(one.until - mux.now + 0.1, flood)
        assert "on parole" in ends.reason
    assert lengths == [10, 20, 40, 60, 60] and mux.holes.times == 5


def test_relapses_are_forgiven_after_a_time() -> None:
    mux, flood = Mux(), {A: syns(9000)}
    mux.run(2, flood)
    mux.run(2, {})
    mux.now += FORGIVEN_S
    mux.run(2, flood)
    assert mux.holes.in_force[A].relapses == 0


def test_after_a_relapse_a_flood_has_to_be_over_for_longer() -> None:
    mux, flood = Mux(), {A: syns(90_000)}
    for quiet_s in (0.5, 1.0, 2.0):
        mux.run(2.5, flood)
        assert not mux.run(quiet_s - 0.2, {}) and mux.run(0.5, {}), quiet_s


def test_what_came_before_a_gap_does_not_count() -> None:
    mux, flood = Mux(), {A: syns(9000)}
    mux.run(0.9, flood)
    mux.holes.start_again()
    assert not mux.run(0.9, flood) and mux.run(0.2, flood)


def test_a_released_vip_has_no_record() -> None:
    mux, flood = Mux(), {A: syns(9000)}
    mux.run(2, flood)
    assert mux.holes.release(A, mux.now) and not mux.vips and not mux.holes.release(A, mux.now)
    assert not mux.run(0.9, flood)
    mux.run(0.3, flood)
    assert mux.holes.in_force[A].relapses == 0


@pytest.mark.parametrize(
    ("rules", "capacity", "vips"),
    [(BlackHole(enabled=False), CAPACITY, (A, B)), (RULES, None, (A, B)), (RULES, 9, (B,))],
)
def test_a_configuration_may_end_a_black_hole(rules: BlackHole, capacity: int | None, vips: Any) -> None:
    mux = Mux()
    mux.run(2, {A: syns(9000)})
    mux.holes.configure(rules, capacity, dict.fromkeys(vips, 1))
    assert not mux.vips
    if not rules.enabled:
        assert not mux.run(3, {A: syns(9000)})


UPSTREAM = RULES.model_copy(update={"upstream": "blackhole"})


def test_a_flood_that_still_costs_packets_is_dropped_upstream_until_its_time_is_over() -> None:
    mux, flood = Mux(rules=UPSTREAM), {A: syns(90_000), B: clients(100)}
    mux.run(1.1, flood)
    assert mux.vips == {A} and not mux.run(1.8, flood, loses=True)
    (change,) = mux.run(0.4, flood, loses=True)
    assert (change.vip, change.upstream_s) == (A, 10.0) and mux.holes.in_force[A].is_upstream
    assert not mux.run(9, {B: clients(100)}), "nothing comes any more, which does not mean that the flood is over"
    (ends,) = mux.run(1.3, {B: clients(100)})
    assert (ends.vip, ends.begins, mux.vips) == (A, False, set()) and "on parole" in ends.reason
    mux.run(1.1, flood)
    assert mux.holes.in_force[A].relapses == 1 and not mux.holes.in_force[A].is_upstream


@pytest.mark.parametrize(
    ("rules", "usage", "loses"),
    [
        (RULES, {A: syns(9000)}, True),
        (UPSTREAM, {A: syns(9000)}, False),
        (UPSTREAM, {A: syns(4000), B: clients(9000)}, True),
    ],
    ids=["not configured", "the black hole helps", "most packets are another's"],
)
def test_nothing_is_dropped_upstream_without_need(rules: BlackHole, usage: dict[Address, Usage], loses: bool) -> None:
    mux = Mux(rules=rules)
    mux.run(1.1, {A: syns(9000), B: clients(100)})
    mux.run(5, usage, loses)
    assert mux.vips == {A} and not mux.holes.in_force[A].is_upstream
