"""Rates, and what keys change in the view."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lbmux.api.answers import VerdictLine
from lbmux.errors import LbmuxError
from lbmux.tools.top.readings import Counts, Reading, recorded
from lbmux.tools.top.top_rows import drops
from lbmux.tools.top.view import BACKENDS, FLOWS, SERVICES, View
from tests.api.lines import backend_line, flow_line, service_line


def counted(packets: int) -> dict[str, Any]:
    return {"packets": packets, "bytes": 100 * packets, "new_flows": packets // 10, "live_flows": 5}


def with_backends(of: Reading, **changed: Any) -> Reading:
    """A reading in which all backends have other values."""
    muxes = {
        mux: replace(counts, backends=[replace(line, **changed) for line in counts.backends])
        for mux, counts in of.muxes.items()
    }
    return replace(of, muxes=muxes)


def reading(at: float, web: int, dns: int, denied: int = 0, flows: int = 0) -> Reading:
    services = [
        service_line(**counted(web), service="web", backends=2, backends_up=1),
        service_line(**counted(dns), service="dns", protocol="udp", port=53, backends=1, backends_up=1),
    ]
    backends = [
        backend_line(**counted(web), service="web", backend="h1"),
        backend_line(**counted(0), service="web", backend="h2", dip="10.1.2.2", state="down", weight=3),
        backend_line(**counted(dns), service="dns", backend="h1", reachable=False),
    ]
    verdicts = [
        VerdictLine("forwarded", "send", web + dns, 0),
        VerdictLine("denied", "drop", denied, 0),
        VerdictLine("no_backend", "drop", 7, 0),
    ]
    entries = [
        flow_line(source_port=n, idle_s=n / 10, backend="h1" if n < flows else "h2")
        for n in range(flows + 1 if flows else 0)
    ]
    return Reading(at, {"mux1": Counts(services, backends, verdicts, entries)}, {})


def together(*each: Reading) -> Reading:
    """The readings of several muxes as one, at the first's time."""
    muxes = {f"mux{number}": one.muxes["mux1"] for number, one in enumerate(each, 1)}
    return Reading(each[0].time, muxes, {})


def view(flows: int = 0) -> View:
    pool_view = View()
    pool_view.take(reading(10.0, 1000, 500))
    pool_view.take(reading(12.0, 3000, 5500, denied=30, flows=flows))
    return pool_view


def test_rates_are_by_the_second_the_largest_first() -> None:
    first, second = view().rows()
    assert (first["service"], first["packets_s"], first["bits_s"], first["new_flows_s"]) == ("dns", 2500, 2e6, 250)
    assert (second["service"], second["packets_s"], second["up"]) == ("web", 1000, "1/2")


def test_drops_are_by_reason_and_only_while_they_continue() -> None:
    assert view().drops() == {"denied": {"mux1": 15}}


def test_restarted_counters_give_no_negative_rates() -> None:
    assert drops(reading(10.0, 0, 0, denied=900), reading(12.0, 0, 0, denied=10)) == {"denied": {"mux1": 5}}
    pool_view = View()
    pool_view.take(reading(10.0, 1000, 0))
    pool_view.take(reading(11.0, 50, 0))
    assert pool_view.rows()[0]["packets_s"] == 50


def test_muxes_are_summed_and_a_restarted_mux_distorts_no_other() -> None:
    pool_view = View()
    pool_view.take(together(reading(10.0, 9000, 0, denied=900), reading(10.0, 1000, 0)))
    pool_view.take(together(reading(11.0, 50, 0, denied=10), reading(11.0, 1300, 0, denied=5)))
    web = pool_view.rows()[0]
    assert (web["service"], web["packets_s"], web["flows"], web["up"]) == ("web", 350, 10, "1/2")
    assert pool_view.drops() == {"denied": {"mux1": 10, "mux2": 5}}


def test_a_mux_that_comes_later_has_no_rates_before_its_second_reading() -> None:
    pool_view = View()
    pool_view.take(reading(10.0, 1000, 0))
    pool_view.take(together(reading(11.0, 1100, 0), reading(11.0, 10**6, 0, denied=10**6)))
    assert pool_view.rows()[0]["packets_s"] == 100 and pool_view.drops() == {}


def test_disagreement_of_muxes_is_shown() -> None:
    one, other = reading(11.0, 0, 0), with_backends(reading(11.0, 0, 0), reachable=False)
    pool_view = View(service="web")
    pool_view.take(together(one, other))
    assert {row["backend"]: row["state"] for row in pool_view.rows()} == {
        "h1": "up; up, no next hop", "h2": "down; down, no next hop",
    }  # fmt: skip


def test_an_agent_counts_no_traffic_and_has_no_targets() -> None:
    pool_view = view()
    assert pool_view.after is not None
    pool_view.after = with_backends(pool_view.after, packets=None, bytes=None, new_flows=None, reachable=None)
    pool_view.service = "web"
    assert [(row["state"], row["packets_s"]) for row in pool_view.rows()] == [("up", None), ("down", None)]
    for _ in range(8):
        pool_view.press("s")
        assert len(pool_view.rows()) == 2


def test_a_pause_reads_the_flows_once() -> None:
    pool_view = view()
    for key in ("p", "down", "enter", "enter"):
        pool_view.press(key)
    assert pool_view.rows() == [] and pool_view.wanted_flows == "service web and backend h1"
    pool_view.take(reading(13.0, 0, 0, flows=2))
    pool_view.take(reading(14.0, 0, 0, flows=9))
    assert len(pool_view.rows()) == 2


def test_into_a_service_and_a_backend_and_back() -> None:
    pool_view = view(flows=3)
    pool_view.press("down")
    pool_view.press("enter")
    assert (pool_view.level, pool_view.service) == (BACKENDS, "web")
    assert [(row["backend"], row["state"]) for row in pool_view.rows()] == [("h1", "up"), ("h2", "down")]
    pool_view.press("enter")
    assert (pool_view.level, pool_view.backend) == (FLOWS, "h1")
    assert [row["port"] for row in pool_view.rows()] == [2, 1, 0]
    pool_view.press("enter")  # there is nothing below
    assert pool_view.level == FLOWS
    pool_view.press("backspace")
    assert (pool_view.level, pool_view.chosen) == (BACKENDS, "h1")
    pool_view.press("backspace")
    assert (pool_view.level, pool_view.chosen) == (SERVICES, "web")
    pool_view.press("backspace")
    assert pool_view.level == SERVICES


def test_the_choice_stays_with_its_row_and_at_the_ends() -> None:
    pool_view = view()
    for key, chosen in (("up", "dns"), ("down", "web"), ("down", "web"), ("r", "web"), ("up", "web"), ("down", "dns")):
        pool_view.press(key)
        assert pool_view.chosen == chosen


def test_sorting_goes_through_the_columns_of_its_level_alone() -> None:
    pool_view, seen = view(), []
    for _ in range(7):
        pool_view.press("s")
        seen.append(pool_view.column)
        pool_view.rows()
    assert seen == ["bits_s", "new_flows_s", "service", "address", "up", "flows", "packets_s"]
    pool_view.press("s")
    pool_view.press("enter")
    assert pool_view.column == "packets_s"


def test_a_pause_keeps_what_is_there() -> None:
    pool_view = view()
    pool_view.press("p")
    pool_view.take(reading(13.0, 0, 0))
    assert pool_view.after is not None and pool_view.after.time == 12.0
    pool_view.press("p")
    pool_view.take(reading(13.0, 0, 0))
    assert pool_view.after.time == 13.0


def test_other_keys_do_nothing() -> None:
    pool_view = view()
    before = replace(pool_view)
    pool_view.press("x")
    assert pool_view == before and not pool_view.ended
    pool_view.press("q")
    assert pool_view.ended


def test_without_a_reading_keys_have_no_effect() -> None:
    pool_view = View()
    for key in ("up", "down", "enter", "backspace", "s", "r"):
        pool_view.press(key)
    assert pool_view.rows() == [] and pool_view.drops() == {}


def test_a_recording_is_read_back(tmp_path: Path) -> None:
    path, readings = tmp_path / "r.jsonl", [reading(10.0, 1, 2), reading(11.0, 3, 4, flows=1)]
    path.write_text("".join(f"{one.line()}\n" for one in readings))
    assert list(recorded(path)) == readings


@pytest.mark.parametrize("line", ["{", "[]", '{"version": 2}', '{"version": 1}', '{"version": 1, "muxes": {"a": {}}}'])
def test_a_line_that_is_not_a_reading_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(reading(10.0, 1, 2).line() + f"\n{line}\n")
    with pytest.raises(LbmuxError, match=f"^{path}:2: "):
        list(recorded(path))


def test_a_file_without_an_end_is_not_a_recording() -> None:
    with pytest.raises(LbmuxError, match=r"^/dev/zero:1: not a reading"):
        list(recorded(Path("/dev/zero")))
