"""Limits the connections to an agent's health port.  Pure; `agent_health` has the sockets.

Only configured muxes may connect.  A connection is authenticated once it has proved that it has the token.  Each source
may have a few connections that are not authenticated; a new one replaces the oldest, so silent connections cannot lock
a mux out.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from lbmux.addresses import Address

MAX_PER_SOURCE = 4
"""Limit of connections per source, counted apart for authenticated ones: a mux that restarts may leave an old one."""


@dataclass(eq=False)
class HealthConnection:
    """One connection; ``abort`` closes it."""

    source: Address
    abort: Callable[[], None]
    is_authenticated: bool = False


class HealthConnections:
    def __init__(self) -> None:
        self._allowed: frozenset[Address] = frozenset()
        self._open = defaultdict[Address, list[HealthConnection]](list)

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def allow(self, sources: frozenset[Address]) -> None:
        """Allow exactly these sources; abort the connections of all others."""
        self._allowed = sources
        for source in self._open.keys() - sources:
            for connection in self._open.pop(source):
                connection.abort()

    def open(self, source: Address, abort: Callable[[], None]) -> HealthConnection | None:
        """Register a new connection; None if its source is not allowed."""
        if source not in self._allowed:
            return None
        connection = HealthConnection(source, abort)
        self._open[source].append(connection)
        self._limit(source, is_authenticated=False)
        return connection

    def authenticated(self, connection: HealthConnection) -> None:
        """Mark a connection as authenticated."""
        connection.is_authenticated = True
        self._limit(connection.source, is_authenticated=True)

    def closed(self, connection: HealthConnection) -> None:
        """Forget a connection that has ended."""
        if connection in self._open.get(connection.source, ()):
            self._open[connection.source].remove(connection)
            if not self._open[connection.source]:
                del self._open[connection.source]

    def _limit(self, source: Address, is_authenticated: bool) -> None:
        alike = [one for one in self._open[source] if one.is_authenticated == is_authenticated]
        for oldest in alike[:-MAX_PER_SOURCE]:
            oldest.abort()
            self.closed(oldest)
