"""A fork server: processes of the lab that start without importing lbmux and loading its machine code again.

Both take over a second of CPU time in a mux or an agent. This server does it once and forks a process for each request.
A fork enters its network namespace and runs ``python -m MODULE ...`` as a new interpreter would, with its own
arguments, environment, directory and streams, and with its own session if requested. Python's string hashes are the
same in all forks.
"""

import atexit
import contextlib
import ctypes
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from lbmux.codegen.compiled import load_cached
from lbmux.errors import LabError
from lbmux.lab.namespaces import enter

PRELOADED = (
    "aiohttp.web", "numpy.ma", "uvloop",
    "lbmux.cli.logs", "lbmux.cli.run.agent_command", "lbmux.cli.run.edge_command", "lbmux.cli.run.mux_command",
    "lbmux.daemons.agent_daemon", "lbmux.daemons.edge_daemon", "lbmux.daemons.manager_daemon",
    "lbmux.daemons.mux_daemon", "lbmux.daemons.process",
)  # fmt: skip
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""A process with more threads cannot fork safely; NumPy's linear algebra would start one per core."""
REQUEST_BYTES = 1 << 17
_first_use = threading.Lock()


class ForkedProcess:
    """A process that the server forked, with the methods of ``subprocess.Popen`` that the lab uses."""

    def __init__(self, report: int) -> None:
        """``report``: the pipe to which the server writes a line with the process id, and one with the exit code."""
        self._report = os.fdopen(report)
        self.returncode: int | None = None
        self.pid = self._number()

    def poll(self) -> int | None:
        return self._reported(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, negative for a signal. Raise subprocess.TimeoutExpired."""
        code = self._reported(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _reported(self, timeout: float | None) -> int | None:
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._report, selectors.EVENT_READ)
                if selector.select(timeout):
                    self.returncode = self._number()
                    self._report.close()
        return self.returncode

    def _number(self) -> int:
        line = self._report.readline()
        if not line:
            raise LabError("", "the fork server has ended")
        return int(line)


class ForkServer:
    """The client's end. The server ends when this process does; its forks continue as children of init."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "lbmux.lab.fork_server", str(theirs.fileno())]
            self._server = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=os.environ | ONE_THREAD,
            )

    def start(
        self, command: Sequence[str], *, stdout: IO[Any], stderr: IO[Any], namespace: str | None = None,
        env: Mapping[str, str] | None = None, start_new_session: bool = False,
    ) -> ForkedProcess:  # fmt: skip
        """Start ``sys.executable -m MODULE ...`` in a network namespace. Its standard input is empty."""
        if [*command[:2]] != [sys.executable, "-m"]:
            raise ValueError(f"{command} does not run a module")
        request = {
            "command": [*command], "namespace": namespace, "session": start_new_session,
            "environment": {**(os.environ if env is None else env)}, "directory": os.getcwd(),
        }  # fmt: skip
        report, theirs = os.pipe()
        socket.send_fds(self._socket, [json.dumps(request).encode()], [stdout.fileno(), stderr.fileno(), theirs])
        os.close(theirs)
        return ForkedProcess(report)

    def close(self) -> None:
        self._socket.close()
        self._server.wait()


@cache
def _only() -> ForkServer:
    return ForkServer()


def shared() -> ForkServer:
    """Return the fork server of this process, started when it is first used."""
    with _first_use:  # of several threads at once
        return _only()


def serve(requests: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Fork for each request until the client disconnects. Return in each fork, with its request and its two streams."""
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not requests:
                    selector.unregister(key.fileobj)
                    _report_exit(key.fd, *key.data)
                    continue
                message, descriptors, *_ = socket.recv_fds(requests, REQUEST_BYTES, 3)
                if not message:
                    return None
                *streams, report = descriptors
                pid = os.fork()
                if pid == 0:
                    return json.loads(message), streams
                for stream in streams:
                    os.close(stream)
                _tell(report, pid)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, report))


def _report_exit(process: int, pid: int, report: int) -> None:
    _tell(report, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os.close(report)
    os.close(process)


def _tell(report: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # the client has dropped its ForkedProcess
        os.write(report, f"{number}\n".encode())


def become(request: dict[str, Any], streams: Sequence[int]) -> None:
    """Turn this fork into the process that was requested, except that its module does not run yet."""
    for number, stream in enumerate(streams, 1):
        os.dup2(stream, number)
    os.closerange(3, max(map(int, os.listdir("/proc/self/fd"))) + 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request["session"]:
        os.setsid()
    if request["namespace"] is not None:
        enter(request["namespace"])
    os.chdir(request["directory"])
    sys.path[0] = request["directory"]
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["command"][2:]
    _show_command(request["command"])


def _show_command(command: Sequence[str]) -> None:
    """Overwrite the server's arguments and environment in memory, so that ps(1) shows this command.

    The kernel takes one string that is longer than the arguments for a title (proc_pid_cmdline(5)).
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    arguments_start, environment_end = int(fields[45]), int(fields[48])  # fields 48 and 51 of proc_pid_stat(5)
    length = environment_end - arguments_start
    text = os.fsencode(" ".join(command))[: length - 1]
    ctypes.memmove(arguments_start, text.ljust(length, b"\0"), length)


def end_at_once(codes: Sequence[int]) -> None:
    """End this process with the exit code in ``codes``, if there is one.

    Python would finalise its modules, which copies the memory that the fork shares with the server: 0.1 s of CPU time.
    """
    for code in codes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(module: str, codes: list[int]) -> None:
    """Run a module as ``python -m`` does, and note its exit code unless it ends by an exception."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as error:
        if isinstance(error.code, int | None):
            codes.append(error.code or 0)
        raise
    codes.append(0)


def main() -> None:
    codes = list[int]()
    atexit.register(end_at_once, codes)  # before those of other modules, so that it runs after them
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the client decides when the server ends
    for module in PRELOADED:
        import_module(module)
    load_cached()
    gc.freeze()
    if (forked := serve(socket.socket(fileno=int(sys.argv[1])))) is not None:
        become(*forked)
        run(sys.argv[0], codes)


if __name__ == "__main__":
    main()
