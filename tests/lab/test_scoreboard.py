"""The scoreboard: its arithmetic on reports that are made up, and its course on experiments that are."""

import time
from dataclasses import replace
from typing import Any, cast

import pytest

from lbmux.cli.main import run as lbmux
from lbmux.errors import LabError
from lbmux.lab.lab import Lab
from lbmux.lab.scoreboard import scoreboard_runner as scoreboard
from lbmux.lab.scoreboard.deadline import deadline
from lbmux.lab.scoreboard.experiment import Load, Outcome, doomed, judge
from lbmux.lab.scoreboard.scenarios import SCENARIOS, Scenario
from lbmux.lab.scoreboard.scoreboard_events import EVENTS, events_of
from lbmux.lab.scoreboard.scoreboard_report import cell, document, print_table
from lbmux.lab.scoreboard.scoreboard_runner import Setting, knows, run
from lbmux.lab.scoreboard.system_under_test import SystemUnderTest


def connection(port: int, lines: int, stall_ms: float = 5.0, broken: str = "") -> dict[str, Any]:
    return {"local_port": port, "backend": "h1", "lines": lines, "longest_stall_ms": stall_ms, "broken": broken}


def report(*connections: dict[str, Any], trouble: float | None = None, **short: Any) -> dict[str, Any]:
    short = {"answered": {}, "failed": {}, "waiting": 0} | short
    return {"connections": connections, "short": short, "trouble": trouble}


def judged(after: dict[str, Any], lost: set[int] = frozenset()) -> Outcome:  # type: ignore[assignment]
    before = report(*(connection(one["local_port"], 10) for one in after["connections"]))
    return judge("ananta", "kill-mux", lost, 100.0, before, after)


def test_unharmed_connections() -> None:
    outcome = judged(report(connection(1, 40), connection(2, 40, 7.5), answered={"h1": 20}))
    assert (outcome.connections, outcome.broken, outcome.stall_ms, outcome.new, outcome.refused) == (2, 0, 7.5, 20, 0)
    assert outcome.normal_ms == 0 and outcome.reasons == {}


def test_broken_connections_differ_from_unavoidable_losses() -> None:
    reset = "Connection reset by peer"
    outcome = judged(report(connection(1, 20, broken=reset), connection(2, 20, broken=reset), connection(3, 40)), {2})
    assert (outcome.broken, outcome.own, outcome.reasons) == (2, 1, {reset: 2})


def test_a_connection_without_an_answer_is_stuck_and_does_not_count_as_a_stall() -> None:
    outcome = judged(report(connection(1, 10, 3900.0), connection(2, 35, 1300.0)))
    assert (outcome.broken, outcome.reasons, outcome.stall_ms) == (1, {"stuck": 1}, 1300.0)


def test_time_until_normal_is_that_of_the_last_trouble() -> None:
    outcome = judged(report(connection(1, 40), trouble=101.25, answered={"h1": 5}, failed={"no answer": 2}))
    assert (outcome.normal_ms, outcome.new, outcome.refused) == (1250, 7, 2)
    assert judged(report(connection(1, 40), trouble=99.0)).normal_ms == 0


def test_new_ones_that_still_wait_at_the_end_are_refused() -> None:
    outcome = judged(report(connection(1, 40), trouble=102.0, answered={"h1": 5}, waiting=40))
    assert (outcome.new, outcome.refused, outcome.normal_ms, outcome.reasons) == (45, 40, 2000, {"still waiting": 40})


@pytest.mark.parametrize(
    ("event", "hit"), [("reseed-router", set()), ("kill-mux", {1}), ("lose-pop", {1, 2}), ("kill-mux+lose-pop", {1, 2})]
)
def test_an_edge_that_is_hit_takes_its_own_connections_and_a_pop_those_of_its_edges(event: str, hit: set[int]) -> None:
    system = SystemUnderTest(SCENARIOS["cloudflare-balanced"], cast(Lab, Idle()))
    connections = [connection(port, 10) | {"backend": f"h{port}"} for port in (1, 2, 3, 4)]
    assert doomed(system, event, connections) == hit


def test_a_pair_is_two_events_in_order() -> None:
    assert [event.name for event in events_of("kill-mux+add-backend")] == ["kill-mux", "add-backend"]
    with pytest.raises(LabError, match="no event 'kill-mux\\+nonsense'"):
        events_of("kill-mux+nonsense")


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_every_event_of_a_scenario_is_one(scenario: Any) -> None:
    for event in scenario.events:
        assert set(event.split("+")) <= EVENTS.keys() and knows(scenario, event)
    assert set(scenario.forwarders) <= {node.name for node in scenario.topology().nodes}
    assert set(scenario.backends.values()) <= {node.name for node in scenario.topology().nodes}


def test_an_event_that_a_system_cannot_have_is_not_known() -> None:
    assert not knows(SCENARIOS["cloudflare"], "add-backend")
    assert not knows(SCENARIOS["cloudflare"], "kill-mux+add-backend")
    assert not knows(SCENARIOS["ananta"], "lose-pop")


def test_an_endless_experiment_ends_at_the_deadline() -> None:
    begun = time.monotonic()
    with pytest.raises(LabError, match="not done within 0 s"), deadline(0.1):
        time.sleep(5)
    assert time.monotonic() - begun < 1
    with deadline(0.05):
        pass
    time.sleep(0.1)  # no event follows


class Idle:
    """A lab of a scenario, without anything in it."""

    def down(self) -> None:
        pass


def begun(monkeypatch: pytest.MonkeyPatch, happens: dict[str, Any], most_s: float = 60.0) -> list[Any]:
    """What `run` says of experiments that are made up, and how often a lab was built."""
    labs: list[Scenario] = []

    def experiment(system: object, event: str, load: Load) -> Outcome:
        happens[event]()
        return replace(judged(report(connection(1, 40))), event=event)

    monkeypatch.setattr(scoreboard, "Lab", lambda *_: Idle())
    monkeypatch.setattr(scoreboard, "_build", lambda scenario, lab: labs.append(scenario) or scenario)
    monkeypatch.setattr(scoreboard, "experiment", experiment)
    monkeypatch.setattr(scoreboard, "RECOVER_S", 0.1)
    load, setting = Load(seconds=0.1), Setting("t", most_s=most_s)
    outcomes = list(run(["ananta"], list(happens), load, setting, lambda text: None))
    return [one if isinstance(one, tuple) else one.event for one in outcomes] + [len(labs)]


def fail() -> None:
    raise OSError(5, "broken pipe")


def test_an_experiment_that_fails_or_hangs_is_a_row_with_its_reason_and_the_next_has_a_new_lab(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happens = {"nothing": int, "reload": lambda: time.sleep(5), "kill-mux": int, "cut-link": fail, "add-mux": int}
    assert begun(monkeypatch, happens) == [
        "nothing", ("ananta", "reload", "not done within 0 s"), "kill-mux",
        ("ananta", "cut-link", "[Errno 5] broken pipe"), "add-mux", 3,
    ]  # fmt: skip


def test_no_experiment_begins_after_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    over = "not started: the time limit for all experiments has passed"
    outcomes = begun(monkeypatch, {"nothing": lambda: time.sleep(0.1), "reload": int}, most_s=0.05)
    assert outcomes == ["nothing", ("ananta", "reload", over), 1]


def test_the_table_has_what_was_measured_and_why_something_was_not(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = judged(report(connection(1, 40)))
    print_table([outcome], [("seesaw", "reload", "no keepalived")], Load(), 12.0)
    lines = capsys.readouterr().out.splitlines()
    (killed,) = (line for line in lines if "kill-mux" in line)
    (reloaded,) = (line for line in lines if "│ reload" in line)
    assert "0 / 5 / 0 / 0" in killed and "not measured" in reloaded and lines[-1] == "seesaw: reload: no keepalived"


def test_the_written_result_has_every_outcome_and_failure() -> None:
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


def test_a_cell_says_when_a_flooded_vip_was_isolated_and_back() -> None:
    outcome = Outcome("ananta", "flood-vip", 500, 0, 0, 13.4, 200, 0, 0.0, {}, 1234.4, 612.3)
    assert cell(outcome) == "0 / 13 / 0 / 0; isolated 1234, back 612"
