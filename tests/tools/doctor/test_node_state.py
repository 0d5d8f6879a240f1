"""The role that the doctor assumes for a machine, and its findings if no daemon answers."""

from ipaddress import ip_address
from pathlib import Path
from typing import get_args

import pytest

from lbmux.api.answers import Health, Runtime
from lbmux.api.control_server import Handlers
from lbmux.api.refusals import OF_AN_EDGE, refuse_requests
from lbmux.api.requests import GetHealth, GetRuntime
from lbmux.tools.doctor import capability_checks, daemon_checks, node_state, role_guess
from lbmux.tools.doctor.node_state import NodeState, Role
from lbmux.tools.doctor.run_checks import CHECKS, examine
from tests.api.answering import answering
from tests.api.lines import runtime


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a trace of a daemon."""
    for module in (node_state, role_guess):
        monkeypatch.setattr(module, "default_path", lambda program: tmp_path / f"{program}.sock")
    monkeypatch.setattr(role_guess, "SETTINGS", tmp_path / "etc")
    monkeypatch.setattr(role_guess, "directory_of", lambda interface, role: tmp_path / "bpf" / f"1-{interface}-{role}")
    return tmp_path


def test_without_a_daemon_the_machine_is_a_router(bare: Path) -> None:
    assert NodeState.here(None, None, None, ()).role == "router"
    (bare / "agent.sock").touch()
    assert NodeState.here(None, None, None, ()).role == "agent"
    (bare / "mux.sock").touch()
    state = NodeState.here(None, None, None, ())
    assert (state.role, state.control) == ("mux", bare / "mux.sock")


@pytest.mark.parametrize("role", ["mux", "agent"])
@pytest.mark.parametrize("trace", ["{}.overrides", "{}.found", "etc/{}.env", "bpf/1-eth0-{}"])
def test_a_daemon_that_is_down_is_known_by_its_files(role: str, trace: str, bare: Path) -> None:
    left = bare / trace.format(role)
    left.parent.mkdir(exist_ok=True)
    left.touch()
    state = NodeState.here(None, None, None, ())
    assert (state.role, state.control) == (role, bare / f"{role}.sock")
    (finding,) = daemon_checks.answers(state)
    assert finding.state == "fault" and "nothing listens there" in finding.seen
    assert f"start `lbmux {role}`" in finding.hint and f"{left} exists" in finding.hint


@pytest.mark.parametrize(
    ("own", "role"),
    [
        ("10.0.1.2", "mux"),
        ("2001:db8::a", "mux"),
        ("10.1.1.2", "agent"),
        ("2001:db8::b", "agent"),
        ("10.9.9.9", "router"),
    ],
)
def test_a_daemon_that_is_down_is_known_by_the_files_addresses(
    own: str, role: str, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = bare / "services.yaml"
    file.write_text("""
        muxes: [10.0.1.2, "2001:db8::a"]
        services:
          - {name: web, vip: 192.0.2.1, protocol: tcp, port: 80, backends: [{dip: 10.1.1.2}]}
          - {name: web6, vip: 192.0.2.1, protocol: tcp, port: 81, backends: [{dip: 10.1.1.3, host: "2001:db8::b"}]}
    """)
    monkeypatch.setattr(node_state, "addresses", lambda: [ip_address(own)])
    state = NodeState.here(None, None, file, ())
    assert state.role == role
    (finding,) = daemon_checks.answers(state)
    assert finding.state == ("unchecked" if role == "router" else "fault")
    assert own in finding.hint or "the role router is assumed" in finding.seen


@pytest.mark.parametrize(
    ("socket", "hint"),
    [
        ("mux.sock", "start `lbmux mux`,"),
        ("agent.sock", "start `lbmux agent`,"),
        ("edge2.sock", "start `lbmux edge`,"),
        ("host1.sock", "the role mux is assumed because nothing answers at"),
    ],
)
def test_the_hint_names_the_daemon_whose_name_the_socket_bears(socket: str, hint: str, tmp_path: Path) -> None:
    (finding,) = daemon_checks.answers(NodeState.here(None, tmp_path / socket, None, ()))
    assert hint in finding.hint and ("assumed" in hint or "assumed" not in finding.hint)


def test_a_mux_that_is_not_there_is_a_fault_and_no_check_fails_for_it(tmp_path: Path) -> None:
    findings = list(examine(NodeState("mux", tmp_path / "mux.sock")))
    faults = [finding for finding in findings if finding.check == "daemon"]
    assert [finding.state for finding in faults] == ["fault"]
    assert "nothing listens there" in faults[0].seen and "lbmux mux" in faults[0].hint
    assert not [finding for finding in findings if "check failed" in finding.seen]


def test_an_invalid_file_is_reported_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "services.yaml"
    path.write_text("services:\n- name: web\n  vip: nonsense\n")
    every = examine(NodeState("host", tmp_path / "x", path))
    findings = [finding for finding in every if finding.check == "configuration"]
    assert {finding.state for finding in findings} == {"fault"}
    assert any(finding.seen.startswith(f"{path}:3: services[0].vip: ") for finding in findings)


def test_every_role_has_checks() -> None:
    assert set(CHECKS) == set(get_args(Role))


async def runtime_of_an_edge(request: GetRuntime) -> Runtime:
    return runtime(program="edge")


@pytest.mark.parametrize("balances", [True, False])
def test_an_edge_needs_the_rights_of_a_mux_only_if_it_balances(
    balances: bool, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def health(request: GetHealth) -> Health:
        return Health(1, "edge", [])

    monkeypatch.setattr(capability_checks, "effective", lambda process: 0)
    handlers: Handlers = {**refuse_requests(OF_AN_EDGE), GetHealth: health}
    if balances:
        handlers = {**handlers, GetRuntime: runtime_of_an_edge}
    with answering(bare / "edge.sock", handlers):
        state = NodeState.here(None, None, None, ())
        assert state.role == ("balancing-edge" if balances else "edge")
        (daemon,) = daemon_checks.answers(state)
        (rights,) = capability_checks.rights(state)
    assert daemon.state == "ok" and daemon.seen.startswith("edge")
    assert (rights.state, "needs no capabilities" in rights.seen) == (("fault", False) if balances else ("ok", True))
