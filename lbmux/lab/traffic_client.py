"""The lab's end of traffic (lbmux.lab.connections, lbmux.lab.https_users), which a process in a node generates."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from typing import Any

from lbmux.errors import LabError
from lbmux.lab.connections import Silence
from lbmux.lab.lab import Lab
from lbmux.lab.processes import python


class Client:
    """The traffic process of a lab node, which reports on request."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.first = self._read()

    def report(self) -> dict[str, Any]:
        self._write("report\n")
        return self._read()

    def report_once_answered(self, most_s: float) -> dict[str, Any]:
        """Return a report once no long connection is stuck, at most ``most_s`` later.

        Short connections that are open then have their answer first, or fail.
        """
        self._write(f"answered {most_s:g}\n")
        return self._read()

    def fall_silent(self, silence: Silence) -> dict[str, Any]:
        """Make the long connections silent, and return a report once all are."""
        self._write(f"{silence.kind} {silence.seconds:g}\n")
        return self._read()

    def _write(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LabError("", "the traffic process ended unexpectedly")
        report: dict[str, Any] = json.loads(line)
        return report


@contextlib.contextmanager
def traffic(lab: Lab, node: str, address: str, port: int, *options: str) -> Iterator[Client]:
    """Run traffic from a node within the context."""
    with reporting(lab, node, "lbmux.lab.connections", address, str(port), *options) as client:
        yield client


@contextlib.contextmanager
def reporting(lab: Lab, node: str, module: str, *arguments: str) -> Iterator[Client]:
    """Run a module that generates traffic and reports on request in a node within the context."""
    command = python(module, *arguments)
    with lab.popen(node, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Client(process)
        finally:
            process.kill()
