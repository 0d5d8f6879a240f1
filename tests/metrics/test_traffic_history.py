"""A mux's traffic by the second."""

import pytest

from lbmux.api.answers import HistoryPoint
from lbmux.metrics.traffic_history import MOST_FILLED_S, SECONDS, TrafficHistory, TrafficTotals


def totals(packets: int, drops: dict[str, int] | None = None) -> TrafficTotals:
    return TrafficTotals(packets, packets * 100, packets // 10, drops or {})


def test_a_point_is_what_happened_since_the_last_sample() -> None:
    history = TrafficHistory()
    history.sample(1000, totals(500, {"no_backend": 3}))
    history.sample(1001, totals(700, {"no_backend": 3, "malformed": 8}))
    assert history.since(0) == [HistoryPoint(1001, 200.0, 20000.0, 20.0, {"malformed": 8.0})]


def test_only_later_points_are_returned() -> None:
    history = TrafficHistory()
    for second in range(1000, 1006):
        history.sample(second, totals(second))
    assert [one.second for one in history.since(1003)] == [1004, 1005]


def test_a_late_sample_is_the_average_of_its_seconds() -> None:
    history = TrafficHistory()
    history.sample(1000, totals(0))
    history.sample(1004, totals(80))
    assert [(one.second, one.packets) for one in history.since(0)] == [(1001 + n, 20.0) for n in range(4)]


def test_a_second_sample_of_a_second_is_ignored() -> None:
    history = TrafficHistory()
    for second, packets in ((1000, 0), (1001, 10), (1001, 15), (1002, 30)):
        history.sample(second, totals(packets))
    assert [(one.second, one.packets) for one in history.since(0)] == [(1001, 10.0), (1002, 20.0)]


def test_a_long_gap_is_unknown() -> None:
    history = TrafficHistory()
    history.sample(1000, totals(0))
    history.sample(1001 + MOST_FILLED_S, totals(80))
    history.sample(1002 + MOST_FILLED_S, totals(90))
    assert [(one.second, one.packets) for one in history.since(0)] == [(1002 + MOST_FILLED_S, 10.0)]


@pytest.mark.parametrize("after", [totals(5), totals(200, {"malformed": 1})], ids=["packets", "drops"])
def test_counters_that_restart_make_a_gap(after: TrafficTotals) -> None:
    history = TrafficHistory()
    history.sample(1000, totals(100, {"malformed": 7}))
    history.sample(1001, after)
    assert history.since(0) == []


def test_a_clock_that_goes_back_gives_one_point_a_second() -> None:
    history = TrafficHistory()
    for second, packets in ((1000, 0), (1001, 10), (1002, 20), (1000, 30), (1001, 70), (1002, 90)):
        history.sample(second, totals(packets))
    assert [(one.second, one.packets) for one in history.since(0)] == [(1001, 40.0), (1002, 20.0)]


def test_a_quarter_of_an_hour_is_kept() -> None:
    history = TrafficHistory()
    for second in range(2000):
        history.sample(second, totals(second))
    kept = history.since(0)
    assert (len(kept), kept[0].second, kept[-1].second) == (SECONDS, 2000 - SECONDS, 1999)
