"""What is a violation, on reports that are made up."""

from typing import Any

import pytest

from lbmux.lab.chaos.invariants import DETECTED_S, MORE_DESCRIPTORS, Hits, allowed, broken, unsettled
from lbmux.lab.chaos.schedule import Step

RESET = "Connection reset by peer"


def step(event: str, backend: str = "h1") -> Step:
    return Step(1.0, 2.0, event, "mux1", backend)


def report(
    reason: str = "", backend: str = "h1", stall_ms: float = 5.0, asked_at: float = 100.0, **failed: int
) -> dict[str, Any]:
    connection = {"local_port": 40000, "backend": backend, "broken": reason, "longest_stall_ms": stall_ms}
    connection["asked_at"] = asked_at
    return {"connections": [connection], "short": {"failed": failed}}


def seen(said: dict[str, Any], hits: Hits, now_s: float = 10.0) -> list[str]:
    return [one.what for one in broken(said, hits, now_s)]


def test_a_connection_that_breaks_without_a_hit_is_a_violation() -> None:
    hits = Hits()
    hits.begin(step("kill-mux"))
    hits.begin(step("kill-backend", "h2"))
    assert seen(report(RESET), hits) == [f"connection from port 40000 to h1: {RESET}"]
    assert seen(report(), hits) == []


@pytest.mark.parametrize("event", ["kill-backend", "kill-host", "kill-agent", "freeze-agent"])
def test_the_event_is_named_after_which_a_connection_had_no_answer(event: str) -> None:
    hits = Hits()
    hits.begin(step(event))
    assert hits.cause(report(asked_at=99.0)["connections"][0]) == event
    assert seen(report(RESET, asked_at=99.0), hits) == []
    assert seen(report(RESET, "h2", asked_at=99.0), hits) != []


def test_a_connection_of_which_a_later_line_was_answered_has_survived_the_event() -> None:
    hits, killed = Hits(), step("kill-agent")
    hits.begin(killed)
    hits.end(killed, 100.0)
    late = report(RESET, asked_at=100.0 + DETECTED_S)
    assert hits.cause(late["connections"][0]) == "" and seen(late, hits) != []
    hits.begin(step("kill-host"))
    assert hits.cause(late["connections"][0]) == "kill-host"


def test_muxes_may_declare_a_backend_dead_just_after_the_event() -> None:
    hits, frozen = Hits(), step("freeze-agent")
    hits.begin(frozen)
    hits.end(frozen, 100.0)
    assert seen(report(RESET, asked_at=99.9 + DETECTED_S), hits) == []


@pytest.mark.parametrize("reason", ["h2 answers for h1", "answer '7' to line '8'"])
def test_nothing_excuses_a_wrong_answer(reason: str) -> None:
    hits = Hits()
    hits.begin(step("kill-backend"))
    assert seen(report(reason), hits) != []


def test_a_connection_that_never_had_a_server_has_none_that_could_be_hit() -> None:
    assert seen(report("Connection refused", backend=""), Hits()) == []


def test_in_calm_nothing_waits_and_no_new_connection_fails() -> None:
    found = [one.what for one in unsettled(report(stall_ms=1500.0, timeout=2), Hits(), 50.0)]
    assert found == [
        "connection from port 40000 to h1: no answer for 1500 ms with no event in force",
        "2 new connections with no event in force: timeout",
    ]
    assert list(unsettled(report(), Hits(), 50.0)) == []


def test_bounds_are_relative_to_the_state_before_the_first_event() -> None:
    assert allowed("descriptors", 40) == 40 + MORE_DESCRIPTORS
    assert allowed("pins", 12) == 24 and allowed("kB of memory", 1000) > 100_000
