"""One probe of one backend: its target, its errors and its timeout.

Each kind of probe is a coroutine that returns a short description of its success, or raises ProbeError or OSError.  It
is cancelled at its timeout, and then closes what it opened.
"""

import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lbmux.addresses import Address
from lbmux.config.health_models import Health
from lbmux.errors import LbmuxError
from lbmux.health.loop_lag import LagClock, no_lag, responsive_timeout


class ProbeError(LbmuxError):
    """The backend did not answer as expected; ``why`` gives the reason."""

    why: str

    def __str__(self) -> str:
        return self.why


@dataclass(frozen=True)
class Target:
    """The destination of a probe, and its settings."""

    dip: Address
    """The backend's address; through the tunnel, the VIP."""
    port: int
    health: Health
    bind: Callable[[socket.socket], None] | None = field(default=None, compare=False)
    """Prepares a new socket before it is connected."""


Kind = Callable[[Target], Awaitable[str]]


async def attempt(kind: Kind, target: Target, lag_s: LagClock = no_lag) -> tuple[bool, str]:
    """Run a probe; return whether the backend is healthy, and the reason.

    ``lag_s`` measures how far our event loop lags; the lag does not count towards the timeout.
    """
    try:
        async with responsive_timeout(target.health.timeout_s, lag_s):
            return True, await kind(target)
    except TimeoutError:  # also an OSError, so it is caught first
        return False, f"no answer within {target.health.timeout_s:g} s"
    except ProbeError as error:
        return False, error.why
    except (OSError, EOFError, ValueError) as error:
        return False, _why(error)


def _why(error: Exception) -> str:
    if (
        isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError)
    ):  # SSLError has its own numbers
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
