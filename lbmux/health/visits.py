"""Connections to an agent's health port: who may have one, and how many.  Pure; health_agent has the sockets.

Only configured muxes are let in.  A connection counts as a mux's when it has proved that it has the token; until then
it is one of few of its source, of which the oldest goes.  So silent connections lock no mux out.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from lbmux.addresses import Address

MOST_OF_A_SOURCE = 4
"""Connections that have not proved themselves, and as many that have: a mux that restarts leaves an old one behind."""


@dataclass(eq=False)
class Visit:
    """A connection; ``end`` closes it."""

    source: Address
    end: Callable[[], None]
    is_proved: bool = False


class Visits:
    def __init__(self) -> None:
        self._accepted: frozenset[Address] = frozenset()
        self._open = defaultdict[Address, list[Visit]](list)

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def accept(self, sources: frozenset[Address]) -> None:
        """Let these in from now on; others that are in are sent away."""
        self._accepted = sources
        for source in self._open.keys() - sources:
            for visit in self._open.pop(source):
                visit.end()

    def begin(self, source: Address, end: Callable[[], None]) -> Visit | None:
        """None where nobody at this address may come in."""
        if source not in self._accepted:
            return None
        visit = Visit(source, end)
        self._open[source].append(visit)
        self._limit(source, is_proved=False)
        return visit

    def prove(self, visit: Visit) -> None:
        visit.is_proved = True
        self._limit(visit.source, is_proved=True)

    def close(self, visit: Visit) -> None:
        if visit in self._open.get(visit.source, ()):
            self._open[visit.source].remove(visit)
            if not self._open[visit.source]:
                del self._open[visit.source]

    def _limit(self, source: Address, is_proved: bool) -> None:
        for oldest in [one for one in self._open[source] if one.is_proved == is_proved][:-MOST_OF_A_SOURCE]:
            oldest.end()
            self.close(oldest)
