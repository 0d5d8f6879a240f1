"""Starts and ends the processes of a lab. A process is ended only if its id and its start time match the record."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lbmux.errors import LabError
from lbmux.lab import fork_server
from lbmux.lab.fork_server import ForkedProcess
from lbmux.lab.namespaces import inside

READY_TIMEOUT_S = 120.0
"""Seconds.  The first program of a kind compiles, which may take a minute on a busy machine."""
TERM_TIMEOUT_S = 3.0
LOG_TAIL_LINES = 12


@dataclass(frozen=True)
class Process:
    """``started``: start time in clock ticks (field 22 of /proc/PID/stat), which detects a recycled process id."""

    node: str
    name: str
    pid: int
    started: int

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.started


def start_time(pid: int) -> int | None:
    """Return the start time of a process in clock ticks since boot; None if it does not exist or is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def name_of(pid: int) -> str:
    """The command's name of a process (proc_pid_comm(5)), or an empty string if it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    """The children of a process, their children, and so on (proc_tid_children(5))."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, path.read_text().split()):
                found += [child, *descendants(child)]
    return found


def start(
    namespace: str, node: str, name: str, command: Sequence[str], log: Path, ready: bool,
    record: Callable[[Process], None], forked: bool = False,
) -> Process:  # fmt: skip
    """Start a detached process in a namespace and ``record`` it.  With ``ready``, wait for its sd_notify message.

    ``forked``: by the fork server, which takes only commands that run a Python module.
    """
    with contextlib.ExitStack() as stack:
        environment, listener = dict(os.environ), None
        if ready:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="lbmux-ready-"))
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            listener.bind(f"{directory}/notify")
            environment["NOTIFY_SOCKET"] = f"{directory}/notify"
        child: ForkedProcess | subprocess.Popen[bytes]
        with log.open("ab") as output:
            if forked:
                child = fork_server.shared().start(
                    command, stdout=output, stderr=output, namespace=namespace, env=environment, start_new_session=True
                )
            else:
                child = inside(namespace, lambda: subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment,
                    start_new_session=True,
                ))  # fmt: skip
        process = Process(node, name, child.pid, start_time(child.pid) or 0)
        record(process)
        if listener is not None:
            _wait_until_ready(listener, child, process, log)
    return process


def _wait_until_ready(
    listener: socket.socket, child: "ForkedProcess | subprocess.Popen[bytes]", process: Process, log: Path
) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    listener.settimeout(0.05)
    while time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            if b"READY=1" in listener.recv(4096):
                return
        if child.poll() is not None:
            raise LabError(process.node, f"{process.name} ended with {child.returncode}:\n{tail(log)}")
    end([process])
    raise LabError(process.node, f"{process.name} was not ready within {READY_TIMEOUT_S:.0f} s:\n{tail(log)}")


def tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])


def end(processes: Sequence[Process]) -> None:
    """End processes: with SIGTERM first, then with SIGKILL."""
    for process in processes:
        kill(process, signal.SIGTERM)
    deadline = time.monotonic() + TERM_TIMEOUT_S
    while time.monotonic() < deadline and any(_running(process) for process in processes):
        time.sleep(0.01)
    for process in processes:
        kill(process, signal.SIGKILL)
        _running(process)


def kill(process: Process, number: signal.Signals) -> None:
    if process.alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _running(process: Process) -> bool:
    """Return whether the process still runs.  A child that has ended is reaped."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    return process.alive


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]
