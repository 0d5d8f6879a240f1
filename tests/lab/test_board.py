"""The scoreboard: its arithmetic on reports that are made up, and small experiments with all real parts."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lbmux.cli.main import run as lbmux
from lbmux.errors import LabError
from lbmux.lab.board.events import EVENTS, events_of
from lbmux.lab.board.experiment import Load, Outcome, judge
from lbmux.lab.board.report import cell, document
from lbmux.lab.board.run import knows
from lbmux.lab.board.scenarios import SCENARIOS

SEARCH = "/usr/sbin:/usr/local/sbin:/usr/bin"


def connection(port: int, lines: int, stall_ms: float = 5.0, broken: str = "") -> dict[str, Any]:
    return {"local_port": port, "backend": "h1", "lines": lines, "longest_stall_ms": stall_ms, "broken": broken}


def report(*connections: dict[str, Any], trouble: float | None = None, **short: Any) -> dict[str, Any]:
    short = {"answered": {}, "failed": {}, "waiting": 0} | short
    return {"connections": connections, "short": short, "trouble": trouble}


def judged(after: dict[str, Any], lost: set[int] = frozenset()) -> Outcome:  # type: ignore[assignment]
    before = report(*(connection(one["local_port"], 10) for one in after["connections"]))
    return judge("ananta", "kill-mux", lost, 100.0, before, after)


def test_nothing_noticed() -> None:
    found = judged(report(connection(1, 40), connection(2, 40, 7.5), answered={"h1": 20}))
    assert (found.connections, found.broken, found.stall_ms, found.new, found.refused) == (2, 0, 7.5, 20, 0)
    assert found.normal_ms == 0 and found.reasons == {}


def test_broken_are_told_from_those_that_nobody_could_save() -> None:
    reset = "Connection reset by peer"
    found = judged(report(connection(1, 20, broken=reset), connection(2, 20, broken=reset), connection(3, 40)), {2})
    assert (found.broken, found.own, found.reasons) == (2, 1, {reset: 2})


def test_one_that_has_had_no_answer_since_is_stuck_and_its_wait_is_no_stall_of_the_others() -> None:
    found = judged(report(connection(1, 10, 3900.0), connection(2, 35, 1300.0)))
    assert (found.broken, found.reasons, found.stall_ms) == (1, {"stuck": 1}, 1300.0)


def test_time_until_normal_is_that_of_the_last_trouble() -> None:
    found = judged(report(connection(1, 40), trouble=101.25, answered={"h1": 5}, failed={"no answer": 2}))
    assert (found.normal_ms, found.new, found.refused) == (1250, 7, 2)
    assert judged(report(connection(1, 40), trouble=99.0)).normal_ms == 0


def test_new_ones_that_still_wait_at_the_end_are_refused() -> None:
    found = judged(report(connection(1, 40), trouble=102.0, answered={"h1": 5}, waiting=40))
    assert (found.new, found.refused, found.normal_ms, found.reasons) == (45, 40, 2000, {"still waiting": 40})


def test_a_pair_is_two_events_in_order() -> None:
    assert [event.name for event in events_of("kill-mux+add-backend")] == ["kill-mux", "add-backend"]
    with pytest.raises(LabError, match="no event 'kill-mux\\+nonsense'"):
        events_of("kill-mux+nonsense")


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_every_event_of_a_scenario_is_one(scenario: Any) -> None:
    for event in scenario.events:
        assert set(event.split("+")) <= EVENTS.keys() and knows(scenario, event)
    assert set(scenario.fronts) <= {node.name for node in scenario.topology().nodes}
    assert set(scenario.backends.values()) <= {node.name for node in scenario.topology().nodes}


def test_an_event_that_a_system_cannot_have_is_not_known() -> None:
    assert not knows(SCENARIOS["cloudflare"], "add-backend")
    assert not knows(SCENARIOS["cloudflare"], "kill-mux+add-backend")
    assert not knows(SCENARIOS["ananta"], "lose-pop")


def test_what_is_written_has_every_outcome_and_failure() -> None:
    outcome = judged(report(connection(1, 40)))
    said = document([outcome], [("ananta", "reload", "no")], Load(), 12.34)
    assert said["outcomes"][0]["scenario"] == "ananta" and said["seconds"] == 12.3
    assert said["failures"] == [{"scenario": "ananta", "event": "reload", "why": "no"}]
    assert cell(outcome) == "0 / 5 / 0 / 0"


@pytest.mark.parametrize(
    "arguments", [["nowhere"], ["ananta", "nonsense"], ["ananta,nowhere"], ["ananta", "--connections", "0"]]
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert lbmux(["lab", "run", *arguments]) == 2
    assert "Error" in capsys.readouterr().err


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program, path=SEARCH) is None, reason=f"{program} is not installed")


def measured(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert lbmux(["lab", "run", *arguments, "--name", "tb", "--connections", "60", "-j"]) == 0
    return dict(json.loads(capsys.readouterr().out))


@pytest.mark.root
@needs("bird")
def test_connections_survive_what_happens_to_muxes_and_backends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tables have changed just before the mux is lost, so many of its connections are not where they say."""
    path = tmp_path / "board.json"
    events = ["kill-mux", "kill-mux+add-backend", "kill-backend"]
    said = measured(capsys, "ananta", *events, "--seconds", "1.5", "-w", str(path))
    assert json.loads(path.read_text()) == said
    found = {one["event"]: one for one in said["outcomes"]}
    assert list(found) == events and said["failures"] == []
    assert all(one["connections"] == 60 and one["new"] > 10 for one in found.values())
    assert [found[event]["broken"] for event in events[:2]] == [0, 0]
    assert 0 < found["kill-backend"]["broken"] == found["kill-backend"]["own"] < 60


@pytest.mark.root
@needs("keepalived")
def test_the_other_of_two_muxes_takes_over_what_has_lost_its_link(capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = measured(capsys, "seesaw", "cut-link", "--seconds", "4")["outcomes"]
    assert (found["connections"], found["broken"]) == (60, 0)
    assert 0 < found["stall_ms"] < 3500 and found["new"] > 10


@pytest.mark.root
@needs("bird")
def test_a_lost_pop_takes_its_connections_along_and_another_serves_new_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """An edge has no mux behind which its connections could live on."""
    (found,) = measured(capsys, "cloudflare-anycast", "lose-pop", "--seconds", "4")["outcomes"]
    assert (found["connections"], found["broken"]) == (60, 60)
    assert 0 < found["normal_ms"] < 3500 and found["new"] > 10
