"""Findings from the daemon's own state and counters: driver, ring, flow table, verdicts."""

from typing import Any

import pytest

from lbmux.api.answers import BlackHole, Overload
from lbmux.tools.doctor import daemon_checks, traffic_checks
from lbmux.tools.doctor.finding import Finding
from tests.api.lines import flow_table
from tests.tools.doctor.node_states import node


def test_the_kernel_forwards() -> None:
    known = node("mux", runtime={"driver": "xdp", "modes": {"mux_xdp": "native"}})
    assert [*daemon_checks.driver(known)] == [Finding("driver", "ok", "kernel programs forward (mux_xdp native)")]


def test_generic_xdp_has_the_kernel_s_reason() -> None:
    known = node("mux", runtime={"driver": "xdp", "modes": {"mux_xdp": "generic"}, "native_refused": "MTU too large"})
    _, finding = daemon_checks.driver(known)
    assert (finding.state, finding.seen) == ("warning", "XDP is generic, not native, and slower: MTU too large")


@pytest.mark.parametrize(("role", "driver"), [("mux", "packet"), ("agent", "tun")])
def test_user_space_forwards(role: str, driver: str) -> None:
    known = node(role, runtime={"driver": driver, "modes": {}})  # type: ignore[arg-type]
    (finding,) = daemon_checks.driver(known)
    assert (finding.state, finding.seen) == (
        "warning", f"user space forwards ({driver}), not the kernel",
    )  # fmt: skip
    assert finding.hint.startswith(f"`lbmux {role} --driver xdp` reports why")


@pytest.mark.parametrize("role", ["router", "host"])
def test_a_node_without_a_daemon_has_no_driver(role: str) -> None:
    assert [*daemon_checks.driver(node(role, runtime={"driver": "xdp", "modes": {}}))] == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("overload", "state", "seen"),
    [
        ({"seconds": None, "reason": "", "times": 0}, "ok", "none since the start"),
        ({"seconds": None, "reason": "20 drops", "times": 2}, "ok", "not now; 2 times since the start, last: 20 drops"),
        ({"seconds": 1.25, "reason": "20 drops", "times": 2}, "warning", "overloaded for 1.2 s: 20 drops"),
    ],
)
def test_a_mux_that_gets_more_than_it_can_forward(overload: dict[str, Any], state: str, seen: str) -> None:
    (finding,) = traffic_checks.overload(node("mux", runtime={"overload": Overload(**overload)}))
    assert (finding.state, finding.seen) == (state, seen)
    assert state == "ok" or "top-talkers" in finding.hint


def test_black_holes_are_reported_with_the_command_that_ends_them() -> None:
    holes = {"192.0.2.1": BlackHole(3.0, 7.2, 1, 100)}
    found = [*traffic_checks.overload(node("mux", runtime={"overload": Overload(None, "", 1, black_holes=holes)}))]
    assert found[0].seen.endswith("since it is flooded: for 7 s more at most, 1 relapse")
    assert (found[0].state, found[1].state) == ("warning", "ok") and "lbmux parole 192.0.2.1" in found[0].hint


def test_an_agent_does_not_say_whether_it_is_overloaded() -> None:
    assert [*traffic_checks.overload(node("agent", runtime={}))] == []


def test_frames_dropped_by_the_ring() -> None:
    (finding,) = traffic_checks.ring(node("mux", counters={"ring": {"dropped": 3}}))
    assert (finding.state, finding.seen) == ("warning", "3 frames arrived faster than user space read them")
    assert "--driver xdp" in finding.hint


def test_a_ring_that_lost_none_and_no_ring() -> None:
    assert [f.state for f in traffic_checks.ring(node("mux", counters={"ring": {"dropped": 0}}))] == ["ok"]
    assert [*traffic_checks.ring(node("agent", counters={"ring": None}))] == []
    assert [*traffic_checks.ring(node("mux", counters=None))] == []


@pytest.mark.parametrize(
    ("used", "evicted", "full", "state"),
    [(10, 0, 0, "ok"), (90, 0, 0, "ok"), (91, 0, 0, "warning"), (0, 1, 0, "warning"), (0, 0, 1, "warning")],
)
def test_a_table_that_is_full_or_was(used: int, evicted: int, full: int, state: str) -> None:
    known = node(
        "mux", runtime={"tables": flow_table(used, 100)},
        counters={"lookups": {"evicted": evicted, "full": full}},
    )  # fmt: skip
    assert [finding.state for finding in traffic_checks.flow_table(known)] == [state]


@pytest.mark.parametrize("verdict", traffic_checks.VERDICTS)
def test_every_verdict_that_indicates_a_fault(verdict: str) -> None:
    known = node("mux", counters={"verdicts": {"forwarded": 9, verdict: 2}})
    (finding,) = traffic_checks.verdicts(known)
    assert (finding.check, finding.state) == (verdict, traffic_checks.VERDICTS[verdict][0])
    assert finding.seen.startswith("2 packets ") and finding.hint
