"""Capabilities are those of the daemon: the process that owns the socket."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lbmux.daemons.rights import NEEDS
from lbmux.linux import capabilities
from lbmux.linux.capabilities import Capability
from lbmux.tools.doctor import capability_checks
from lbmux.tools.doctor.finding import Finding
from lbmux.tools.doctor.node_state import NodeState
from tests.api.lines import runtime
from tests.tools.doctor.node_states import node

ALL = (1 << 41) - 1
LISTEN = """
import socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.bind(sys.argv[1])
    sock.listen()
    print("ready", flush=True)
    sys.stdin.read()
"""
Write = Callable[[str, int], None]


@pytest.fixture
def status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Files that stand for /proc/PID/status."""
    monkeypatch.setattr(capabilities, "PROC", tmp_path)

    def write(process: str, effective: int) -> None:
        (tmp_path / process).mkdir()
        (tmp_path / process / "status").write_text(f"Name:\tx\nCapPrm:\t{ALL:016x}\nCapEff:\t{effective:016x}\n")

    return write


def without(*lost: Capability) -> int:
    return ALL & ~sum(1 << one for one in lost)


def found(driver: str | None = None) -> Finding:
    """The check of a daemon with that driver, process 7, or of a node without one."""
    known = node(
        "mux" if driver else "router", pid=7 if driver else None, runtime={"driver": driver} if driver else None
    )
    (finding,) = capability_checks.rights(known)
    return finding


@pytest.mark.parametrize("driver", ["xdp", "packet"])
def test_the_daemon_has_them_all(status: Write, driver: str) -> None:
    status("7", ALL)
    status("self", 0)
    assert (found(driver).state, "process 7" in found(driver).seen) == ("ok", True)


def test_the_daemon_lacks_one_whatever_the_doctor_has(status: Write) -> None:
    status("7", without(Capability.NET_RAW))
    status("self", ALL)
    finding = found("packet")
    why = NEEDS["mux"][Capability.NET_RAW]
    assert (finding.state, finding.seen) == ("fault", f"the daemon (process 7) lacks CAP_NET_RAW {why}")
    assert "AmbientCapabilities" in finding.hint


@pytest.mark.parametrize(("driver", "state"), [("xdp", "fault"), ("packet", "warning")])
def test_programs_of_the_kernel_want_two_more(status: Write, driver: str, state: str) -> None:
    status("7", without(Capability.BPF, Capability.PERFMON, Capability.SYS_ADMIN))
    finding = found(driver)
    assert (finding.state, "lacks CAP_BPF to" in finding.seen, "CAP_PERFMON to" in finding.seen) == (state, True, True)


def test_an_administrator_needs_neither(status: Write) -> None:
    status("7", without(Capability.BPF, Capability.PERFMON))
    assert found("xdp").state == "ok"


@pytest.mark.parametrize(("effective", "state"), [(ALL, "ok"), (0, "fault")])
def test_without_a_daemon_it_is_the_users_own(status: Write, effective: int, state: str) -> None:
    status("self", effective)
    assert (found().state, "this user" in found().seen) == (state, True)


@contextlib.contextmanager
def listening(path: Path, *before: str) -> Iterator[int]:
    """A process that has a socket there: its id."""
    command = [*before, sys.executable, "-c", LISTEN, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield process.pid
        process.communicate()


def test_the_daemons_process_is_the_sockets(tmp_path: Path) -> None:
    path = tmp_path / "mux.sock"
    with listening(path) as pid:
        known = NodeState("mux", path)
        known.__dict__["runtime"] = runtime(pid=1)
        assert known.pid == pid != os.getpid()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as own:
        own.bind(str(tmp_path / "own.sock"))
        own.listen()
        known = NodeState("mux", tmp_path / "own.sock")
        known.__dict__["runtime"] = runtime(pid=1)
        assert known.pid == os.getpid()
    assert NodeState("mux", tmp_path / "none.sock").pid is None


@pytest.mark.root
def test_a_process_that_was_started_without_one(tmp_path: Path) -> None:
    path = tmp_path / "mux.sock"
    with listening(path, "setpriv", "--bounding-set", "-net_raw") as pid:
        known = NodeState("mux", path)
        known.__dict__["runtime"] = runtime(pid=1)
        (finding,) = capability_checks.rights(known)
    assert finding.state == "fault"
    assert finding.seen.startswith(f"the daemon (process {pid}) lacks CAP_NET_RAW to")
