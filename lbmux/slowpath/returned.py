"""Packets that a host gave back, for it has no such connection: which backend is asked next.

A mux has no entry for the connections of another mux that is gone.  It sends their packets where its tables say, or
said before the last change; where that is wrong, the host's agent returns them, and the mux tries the others in turn.
So a connection is found again whatever has changed since it began, for a round trip to each host that is tried
(a longer form of the second hop of GitHub's load balancer, and what Ananta, SIGCOMM 2013, section 3.3.4, leaves open).
"""

from collections import OrderedDict
from collections.abc import Sequence

from lbmux.slowpath.flow import Flow

MOST_FLOWS, FORGOTTEN_S = 4096, 3.0
"""How many flows are looked for at a time, and for how long after the last packet that came back."""


class Searches:
    """Which backends have said of a flow that it is not theirs."""

    def __init__(self) -> None:
        self._flows: OrderedDict[Flow, tuple[float, set[int]]] = OrderedDict()

    def next(self, flow: Flow, refused: Sequence[int], candidates: Sequence[int], now: float) -> int | None:
        """The first of the ``candidates`` that has not been asked; None where all have.

        ``refused``: the backends that the host that returned the packet may have been sent it for.
        """
        self._forget(now)
        _, asked = self._flows.pop(flow, (now, set()))
        asked.update(refused)
        self._flows[flow] = now, asked
        if len(self._flows) > MOST_FLOWS:
            self._flows.popitem(last=False)
        return next((backend for backend in candidates if backend not in asked), None)

    def _forget(self, now: float) -> None:
        while self._flows:
            flow, (since, _) = next(iter(self._flows.items()))
            if now - since <= FORGOTTEN_S:
                break
            del self._flows[flow]
