"""One probe of one backend: what it is sent to, how it fails, and the bound on the time that it takes.

A kind of probe is a coroutine that returns a few words on what it saw, or raises ProbeError or OSError.  It relies on
being cancelled at the end of its time, and leaves nothing open then.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lbmux.addresses import Address
from lbmux.config.health_models import Health
from lbmux.errors import LbmuxError


class ProbeError(LbmuxError):
    """The backend answered, and not as it should: ``why``."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)

    def __str__(self) -> str:
        return self.why


@dataclass(frozen=True)
class Target:
    """Where a probe goes, and how it is made."""

    dip: Address
    """The backend's, or the VIP that it is reached by through the tunnel."""
    port: int
    health: Health
    bind: Callable[[socket.socket], None] | None = field(default=None, compare=False)
    """What is to be done with a new socket before it is connected."""


Kind = Callable[[Target], Awaitable[str]]


async def attempt(kind: Kind, target: Target) -> tuple[bool, str]:
    """Whether the backend is healthy, and why."""
    try:
        async with asyncio.timeout(target.health.timeout_s):
            return True, await kind(target)
    except TimeoutError:  # an OSError too: it comes first
        return False, f"no answer within {target.health.timeout_s:g} s"
    except ProbeError as error:
        return False, error.why
    except (OSError, EOFError, ValueError) as error:
        return False, _why(error)


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):  # whose numbers are its own
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
