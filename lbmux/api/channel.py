"""Channels to a daemon's control protocol: its Unix socket, or anything else that carries the same lines."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from lbmux.errors import ControlError


class Channel(Protocol):
    """Carries a request to a daemon that has no socket on this machine."""

    @property
    def name(self) -> str:
        """The daemon's node."""

    def lines(self, request: bytes, timeout_s: float | None) -> Iterator[bytes]:
        """Send a request's line and yield the lines of its answers; raise ControlError."""


ControlTarget = Path | Channel
"""The way to a daemon: the path of its control socket, or a channel."""
PROGRAMS = ("mux", "agent", "edge")
"""The daemons with a control socket."""


def target_name(target: ControlTarget) -> Path | str:
    """Return the name of a control target, for messages."""
    return target if isinstance(target, Path) else target.name


def program_named(path: Path) -> str:
    """Return the program whose name a socket bears (`agent.sock`, `agent2.sock`); empty if none."""
    name = path.stem.rstrip("0123456789")
    return name if name in PROGRAMS else ""


@contextmanager
def answers(target: ControlTarget, request: bytes, timeout_s: float | None) -> Iterator[Iterator[bytes]]:
    """Send a request's line, and give the lines of its answers; ``timeout_s`` limits the wait for each.

    Raise ControlError if nothing listens, OSError if the connection fails.
    """
    if not isinstance(target, Path):
        yield target.lines(request, timeout_s)
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(target))
        except (FileNotFoundError, ConnectionRefusedError):
            program = program_named(target)
            daemon = f"`lbmux {program}`" if program else "the daemon"
            raise ControlError(target, f"nothing listens there; is {daemon} running?") from None
        connection.sendall(request)
        with connection.makefile("rb") as lines:
            yield lines
