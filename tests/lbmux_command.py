"""`lbmux` with arguments as a process of its own, which the fork server starts: its exit code, output and errors."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from lbmux.lab import fork_server

LBMUX = [sys.executable, "-m", "lbmux.cli.main"]
MOST_BYTES = 1 << 26


def lbmux(*arguments: str, namespace: str | None = None, timeout: float = 60.0) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, in a network namespace if one is named."""
    with beside(*arguments, namespace=namespace) as command:
        return command.completed(timeout)


@contextlib.contextmanager
def beside(*arguments: str, namespace: str | None = None) -> "Iterator[Command]":
    """A command that runs beside the test; killed in the end if it still runs."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        line = [*LBMUX, *arguments]
        process = fork_server.shared().start(line, stdout=output, stderr=errors, namespace=namespace)
        try:
            yield Command(line, process, output.fileno(), errors.fileno())
        finally:
            process.kill()
            process.wait()


class Command:
    def __init__(self, line: list[str], process: fork_server.ForkedProcess, output: int, errors: int) -> None:
        """``output`` and ``errors``: files that the process writes to."""
        self._line, self.process, self._output, self._errors = line, process, output, errors

    @property
    def errors(self) -> str:
        return _read(self._errors)

    def wait_for(self, text: str, seconds: float = 30.0) -> None:
        """Wait until it has written this text to standard error."""
        deadline = time.monotonic() + seconds
        while text not in self.errors:
            assert self.process.poll() is None and time.monotonic() < deadline, self.errors
            time.sleep(0.01)

    def completed(self, timeout: float = 60.0) -> "subprocess.CompletedProcess[str]":
        """Wait until it ends."""
        code = self.process.wait(timeout)
        return subprocess.CompletedProcess(self._line, code, _read(self._output), self.errors)


def _read(file: int) -> str:
    """Read all; the position in the file stays, since the process writes there."""
    return os.pread(file, MOST_BYTES, 0).decode()
