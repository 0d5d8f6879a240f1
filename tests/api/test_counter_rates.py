"""Rates between two snapshots of counters."""

from typing import Any

from lbmux.api.answers import BackendLine, VerdictLine
from lbmux.api.counter_rates import CounterSnapshot, TrafficRates, backend_rates, drop_rates, total
from tests.api.lines import backend_line

H1, UNKNOWN_RATES = ("web", "h1"), TrafficRates(None, None, None)


def snapshot(time_s: float, *backends: BackendLine, **drops: int) -> CounterSnapshot:
    verdicts = [VerdictLine("forwarded", "send", int(1000 * time_s), 0)]
    return CounterSnapshot(time_s, backends, [*verdicts, *(VerdictLine(n, "drop", c, 0) for n, c in drops.items())])


def h1(packets: int | None, **more: Any) -> BackendLine:
    return backend_line(packets=packets, **more)


def test_rates_are_by_the_second() -> None:
    before, after = snapshot(10, h1(100, bytes=500, new_flows=3)), snapshot(12, h1(400, bytes=900, new_flows=4))
    assert backend_rates(before, after) == {H1: TrafficRates(150, 200, 0.5)}


def test_a_counter_that_went_back_counts_from_0() -> None:
    assert backend_rates(snapshot(10, h1(900)), snapshot(11, h1(50)))[H1].packets == 50
    assert drop_rates(snapshot(10, denied=900), snapshot(12, denied=10)) == {"denied": 5}


def test_a_new_backend_has_no_rate_yet_and_a_removed_one_none() -> None:
    only, both = snapshot(10, h1(100)), snapshot(11, h1(200), backend_line(backend="h2", packets=10**6))
    assert backend_rates(only, both) == {H1: TrafficRates(100, 0, 0), ("web", "h2"): UNKNOWN_RATES}
    assert backend_rates(both, snapshot(12, h1(250))) == {H1: TrafficRates(50, 0, 0)}


def test_what_an_agent_does_not_count_has_no_rate() -> None:
    nothing = h1(None, bytes=None, new_flows=None)
    assert backend_rates(snapshot(10, nothing), snapshot(11, nothing)) == {H1: UNKNOWN_RATES}


def test_without_time_nothing_has_moved() -> None:
    one = snapshot(10, h1(100), denied=7)
    assert backend_rates(one, one) == {H1: TrafficRates(0, 0, 0)} and drop_rates(one, one) == {}


def test_drops_are_those_that_go_on() -> None:
    assert drop_rates(snapshot(10, denied=5, unsent=3), snapshot(11, denied=9, unsent=3)) == {"denied": 4}


def test_a_sum_skips_unknown_values() -> None:
    assert total([TrafficRates(1, 2, None), TrafficRates(3, None, None)]) == TrafficRates(4, 2, None)
    assert total([]) == UNKNOWN_RATES
