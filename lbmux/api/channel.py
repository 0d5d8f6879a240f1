"""Ways to a daemon's control protocol: its Unix socket, or another that carries the same lines."""

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


Place = Path | Channel
"""Where a daemon is: the path of its control socket, or a channel to it."""


def place_name(place: Place) -> Path | str:
    """Return what people call a place."""
    return place if isinstance(place, Path) else place.name


@contextmanager
def answers(place: Place, request: bytes, timeout_s: float | None) -> Iterator[Iterator[bytes]]:
    """Send a request's line, and give the lines of its answers; ``timeout_s`` limits the wait for each.

    Raise ControlError if nothing listens, OSError if the connection fails.
    """
    if not isinstance(place, Path):
        yield place.lines(request, timeout_s)
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(place))
        except (FileNotFoundError, ConnectionRefusedError):
            raise ControlError(place, "nothing listens there; is the daemon running?") from None
        connection.sendall(request)
        with connection.makefile("rb") as lines:
            yield lines
