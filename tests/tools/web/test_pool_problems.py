"""What needs attention in a pool."""

from typing import Any

import pytest

from lbmux.tools.web.pool_problems import (
    by_severity,
    mux_problems,
    service_problems,
    severity_of,
    severity_of_backend,
    worst,
)


def backend(*states: str, reachable: bool = True, name: str = "h1") -> dict[str, Any]:
    health = [{"state": state, "reason": f"why {state}", "muxes": [f"mux{n}"]} for n, state in enumerate(states, 1)]
    return {"backend": name, "reachable": reachable, "health": health}


def service(*backends: dict[str, Any], agree: bool = True) -> dict[str, Any]:
    return {"service": "web/1", "agree": agree, "backends": [*backends]}


@pytest.mark.parametrize(
    ("state", "severity"),
    [("up", "good"), ("down", "bad"), ("draining", "planned"), ("disabled", "planned"), ("removing", "planned"),
     ("removed", "planned"), ("something new", "unknown")],
)  # fmt: skip
def test_what_an_operator_did_is_planned_and_no_fault(state: str, severity: str) -> None:
    assert severity_of(state) == severity


def test_the_worst_counts() -> None:
    assert worst(["good", "planned", "bad"]) == "bad" and worst([]) == "good"
    assert severity_of_backend(backend("up", "draining")) == "planned"
    assert severity_of_backend(backend("up", reachable=False)) == "bad"


def test_backends_have_their_reason_and_the_view_that_shows_more() -> None:
    (problem,) = service_problems([service(backend("up"), backend("down", name="h 2"))])
    assert problem == {
        "severity": "bad", "what": "web/1/h 2", "text": "down: why down", "at": "#/backend/web%2F1/h%202"
    }  # fmt: skip


def test_muxes_are_named_where_they_disagree() -> None:
    (problem,) = service_problems([service(backend("up", "disabled"))])
    assert (problem["severity"], problem["text"]) == ("planned", "disabled: why disabled (mux2)")


def test_different_tables_and_missing_next_hops_are_faults() -> None:
    errors = [*service_problems([service(backend("up", reachable=False), agree=False)])]
    assert [(one["severity"], one["text"]) for one in errors] == [
        ("bad", "muxes have different tables"), ("bad", "no next hop")
    ]  # fmt: skip


def test_silent_muxes_and_sessions_that_are_down_are_faults() -> None:
    muxes = [{"name": "mux1", "error": "nothing listens there"}, {"name": "mux2", "error": ""}]
    session = {"router": "10.0.0.1", "mux": "mux2", "up": False, "state": "active", "reason": ""}
    errors = [*mux_problems(muxes, [session, session | {"up": True}, session | {"state": ""}])]
    assert [(one["what"], one["text"]) for one in errors] == [
        ("mux1", "nothing listens there; its rates are unknown"),
        ("mux2", "BGP session with 10.0.0.1 is active: no reason given"),
    ]


def test_faults_come_before_what_is_planned() -> None:
    errors = service_problems([service(backend("draining", name="a"), backend("odd", name="b"), backend("down"))])
    assert [one["severity"] for one in by_severity([*errors])] == ["bad", "unknown", "planned"]
