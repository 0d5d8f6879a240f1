"""When a mux is overloaded, decided from counters that are made up."""

from dataclasses import replace

import pytest

from lbmux.metrics.overload import LAG_S, MOST_DROPS, OVER_S, Counters, Overload

READ_S = 0.05
IDLE = Counters(packets=1000, interface_drops=5, ring_drops=7, softirq_s=(1.0, 2.0))


def after(*readings: Counters, capacity_pps: int | None = None) -> Overload:
    overload = Overload()
    overload.capacity_pps = capacity_pps
    for number, counters in enumerate(readings):
        overload.read(100 + READ_S * number, counters)
    return overload


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"ring_drops": 7 + MOST_DROPS + 1}, "11 frames dropped at the ring in 50 ms"),
        ({"interface_drops": 5 + MOST_DROPS + 1}, "11 frames dropped at the interface in 50 ms"),
        ({"packets": 2000}, "20000 packets per second exceed capacity_pps (10000)"),
        ({"lag_s": LAG_S + 0.01}, "the packet loop is 90 ms late"),
    ],
)
def test_one_reading_is_enough(changed: dict[str, int], reason: str) -> None:
    overload = after(IDLE, replace(IDLE, **changed), capacity_pps=10_000)  # type: ignore[arg-type]
    assert (overload.since, overload.reason, overload.times) == (100 + READ_S, reason, 1)


def test_a_cpu_that_only_receives_is_noticed_after_two_readings() -> None:
    readings = [replace(IDLE, softirq_s=(1.0, 2.0 + 0.048 * n)) for n in range(3)]
    assert after(*readings[:2]).since is None
    assert after(*readings).reason == "a CPU spends 96 % of its time in softirqs"


def test_what_was_counted_before_the_start_and_single_drops_do_not_count() -> None:
    assert after(IDLE, IDLE).times == 0
    assert after(IDLE, replace(IDLE, ring_drops=7 + MOST_DROPS, interface_drops=5 + MOST_DROPS)).times == 0
    assert after(IDLE, replace(IDLE, packets=100_000)).times == 0, "no capacity is stated"
    assert after(IDLE, Counters()).times == 0, "the interface was recreated"


def test_it_ends_a_second_after_the_last_sign_and_keeps_its_reason() -> None:
    overload, dropping = after(IDLE), 0
    changes = []
    for n in range(1, 60):
        dropping += 100 if n < 20 else 0
        if overload.read(100 + READ_S * n, replace(IDLE, ring_drops=dropping)):
            changes.append(round(READ_S * n, 2))
    assert changes[0] == READ_S and changes[1] == pytest.approx(19 * READ_S + OVER_S, abs=READ_S)
    assert (overload.since, overload.times) == (None, 1) and "ring" in overload.reason


def test_more_than_the_stated_capacity_is_not_a_loss() -> None:
    over = after(IDLE, replace(IDLE, packets=2000), capacity_pps=10_000)
    assert over.since is not None and not over.loses(100 + READ_S)
    dropping = after(IDLE, replace(IDLE, ring_drops=7 + MOST_DROPS + 1))
    assert dropping.loses(100 + READ_S) and not dropping.loses(100 + READ_S + OVER_S)
