"""The overview of a pool."""

from dataclasses import replace
from pathlib import Path

from lbmux.tools.web.mux_status import poll, poll_summary
from lbmux.tools.web.pool_history import PoolHistory
from lbmux.tools.web.pool_overview import MOST_PROBLEMS, overview, services_overview
from lbmux.tools.web.pool_status import document
from tests.linux.inside import client
from tests.tools.web.conftest import Served


def history_of(muxes: list[Served], packets: int = 0) -> PoolHistory:
    """Return a history in which each mux forwarded so many packets in the last of two seconds."""
    history = PoolHistory()
    for mux in muxes:
        mux.sample(1000)
        mux.send(*(client(port) for port in range(3000, 3000 + packets)))
        mux.sample(1001)
        summary = poll_summary(mux.path.stem, mux.path, 0)
        assert summary.history is not None
        history.add(mux.path.stem, replace(summary.history, points=summary.history.points[:1]))
    return history


def test_muxes_have_the_rates_of_their_last_second(muxes: list[Served]) -> None:
    history = history_of(muxes, 40)
    shown = overview([poll_summary(mux.path.stem, mux.path, 0) for mux in muxes], history, None, 0)
    assert [(mux["name"], mux["packets_per_s"], mux["new_flows_per_s"]) for mux in shown["muxes"]] == [
        ("mux1", 40.0, 40.0), ("mux2", 40.0, 40.0)
    ]  # fmt: skip
    assert [(one["second"], one["packets"]) for one in shown["points"]] == [(1001, 80.0)]
    assert (shown["unknown"], shown["counts"], shown["busiest"]) == ([], None, [])
    assert [(one["router"], one["up"]) for one in shown["sessions"]] == [
        ("10.0.1.1", True), ("10.0.1.1", True), ("10.0.2.1", False)
    ]  # fmt: skip


def test_only_what_is_new_is_sent_again(muxes: list[Served]) -> None:
    shown = overview([poll_summary("mux1", muxes[0].path, 0)], history_of(muxes[:1]), None, 1001)
    assert shown["points"] == []


def test_a_mux_that_does_not_answer_is_unknown_not_0(muxes: list[Served], tmp_path: Path) -> None:
    history, summaries = history_of(muxes[:1], 7), [poll_summary("mux1", muxes[0].path, 0)]
    shown = overview([*summaries, poll_summary("gone", tmp_path / "gone.sock", 0)], history, None, 0)
    assert (shown["unknown"], shown["muxes"][1]["packets_per_s"]) == (["gone"], None)
    assert [one["packets"] for one in shown["points"]] == [7.0]
    assert shown["problems"][0]["what"] == "gone"


def test_the_overview_of_services_counts_backends_by_severity(muxes: list[Served]) -> None:
    services = document([poll(mux.path.stem, mux.path) for mux in muxes], [])["services"]
    counted = services_overview(services)
    assert counted["counts"] == {
        "services": 2, "backends": 5, "hosts": 4, "severities": {"good": 3, "bad": 1, "planned": 1}
    }  # fmt: skip
    assert [one["service"] for one in counted["busiest"]] == ["web", "dns"]
    summaries = [poll_summary(mux.path.stem, mux.path, 0) for mux in muxes]
    shown = overview(summaries, history_of(muxes), counted, 0)
    assert shown["problem_counts"] == {"bad": 3, "planned": 1}


def test_problems_are_bounded_and_counted() -> None:
    health = [{"state": "down", "reason": "refused", "muxes": ["mux1"]}]
    backends = [
        {"backend": f"b{n}", "host": "10.1.1.2", "reachable": True, "health": health, "packets_per_s": 0.0,
         "new_flows_per_s": 0.0}
        for n in range(MOST_PROBLEMS + 25)
    ]  # fmt: skip
    service = {"service": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80, "live_flows": 0, "agree": True}
    shown = overview([], PoolHistory(), services_overview([service | {"backends": backends}]), 0)
    assert (len(shown["problems"]), shown["problem_counts"]) == (MOST_PROBLEMS, {"bad": MOST_PROBLEMS + 25})
