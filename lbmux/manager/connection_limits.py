"""Limits the time and the number of connections that have not made an authorised request.

Slow connections therefore only displace each other. The oldest is closed first, and a connection with an authorised
request no longer counts.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from lbmux.manager.manager_metrics import ManagerMetrics

FIRST_REQUEST_S = 10.0
"""Time for TLS, the first request's header, and its token, in seconds."""
MOST_UNKNOWN = 256
"""Maximum number of connections without an authorised request."""


class ConnectionLimits:
    """Wraps aiohttp's protocol factory; ``admit`` is called for a connection with an authorised request."""

    def __init__(self, factory: Callable[[], Any], metrics: ManagerMetrics) -> None:
        self._factory, self._metrics = factory, metrics
        self._unknown: dict[Any, asyncio.TimerHandle] = {}

    def connection(self) -> Any:
        """Make the protocol of a new connection."""
        if len(self._unknown) >= MOST_UNKNOWN:
            oldest = next((one for one in self._unknown if one.transport is not None), None)
            if oldest is not None:  # otherwise all are in the handshake, which has its own time limit
                self._close(oldest, "too_many")
        protocol = self._factory()
        loop = asyncio.get_running_loop()
        self._unknown[protocol] = loop.call_later(FIRST_REQUEST_S, self._close, protocol, "slow")
        return protocol

    def admit(self, protocol: Any) -> None:
        if (timer := self._unknown.pop(protocol, None)) is not None:
            timer.cancel()

    def _close(self, protocol: Any, reason: str) -> None:
        self.admit(protocol)
        if protocol.transport is not None:
            protocol.transport.abort()
            self._metrics.closed.labels(reason).inc()
