"""The histories of several muxes, and their sums."""

from lbmux.api.answers import History, HistoryEvent, HistoryPoint
from lbmux.metrics.recent_log import MOST_LINES
from lbmux.metrics.traffic_history import SECONDS
from lbmux.tools.web.pool_history import PoolHistory


def said(seconds: range, packets: float = 10.0, events: list[HistoryEvent] | None = None) -> History:
    points = [HistoryPoint(second, packets, packets * 100, 1.0, {"malformed": 2.0}) for second in seconds]
    return History(1, "mux", points, events or [])


def test_points_are_sums_over_the_muxes() -> None:
    history = PoolHistory()
    history.add("mux1", said(range(100, 103)))
    history.add("mux2", said(range(101, 103), 5.0))
    points = history.points(["mux1", "mux2"])
    assert [(one["second"], one["packets"], one["muxes"]) for one in points] == [
        (100, 10.0, 1), (101, 15.0, 2), (102, 15.0, 2)
    ]  # fmt: skip
    assert points[1] == {
        "second": 101, "muxes": 2, "packets": 15.0, "bytes": 1500.0, "new_flows": 2.0, "drops": {"malformed": 4.0}
    }  # fmt: skip


def test_a_second_that_a_mux_has_yet_to_report_is_left_for_later() -> None:
    history = PoolHistory()
    history.add("mux1", said(range(100, 104)))
    history.add("mux2", said(range(100, 102)))
    assert [one["second"] for one in history.points(["mux1", "mux2"])] == [100, 101]
    history.add("mux2", said(range(102, 104)))
    assert [one["second"] for one in history.points(["mux1", "mux2"], since=101)] == [102, 103]


def test_a_mux_that_is_not_asked_for_holds_nothing_up() -> None:
    history = PoolHistory()
    history.add("mux1", said(range(100, 104)))
    history.add("dead", said(range(50, 60)))
    assert [one["second"] for one in history.points(["mux1"])] == [100, 101, 102, 103]
    assert history.points([]) == []


def test_a_quarter_of_an_hour_is_kept() -> None:
    history = PoolHistory()
    history.add("mux1", said(range(SECONDS + 100)))
    assert len(history.points(["mux1"])) == SECONDS
    assert history.last("mux1") == SECONDS + 99
    latest = history.latest("mux1")
    assert latest is not None and latest.second == SECONDS + 99
    assert history.latest("mux2") is None and history.last("mux2") == 0


def test_events_are_kept_once_and_in_order() -> None:
    history = PoolHistory()
    first, second = HistoryEvent(100.5, "info", "reloaded"), HistoryEvent(101.5, "warning", "backend down")
    history.add("mux1", said(range(0), events=[first]))
    history.add("mux1", said(range(0), events=[first, second]))
    history.add("mux2", said(range(0), events=[HistoryEvent(101.0, "info", "other")]))
    assert [(one["mux"], one["text"]) for one in history.events(["mux1", "mux2"])] == [
        ("mux1", "reloaded"), ("mux2", "other"), ("mux1", "backend down")
    ]  # fmt: skip
    assert [one["text"] for one in history.events(["mux1", "mux2"], since=101.2)] == ["backend down"]


def test_the_oldest_events_go() -> None:
    history = PoolHistory()
    history.add("mux1", said(range(0), events=[HistoryEvent(float(n), "info", str(n)) for n in range(MOST_LINES + 7)]))
    assert history.events(["mux1"])[0]["text"] == "7"
