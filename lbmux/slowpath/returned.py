"""Packets that a host gave back, for it has no such connection: which backend is asked next.

A mux has no entry for the connections of another mux that is gone.  It sends their packets where its tables say, or
said before the last change; where that is wrong, the host's agent returns them, and the mux tries the others in turn.
So a connection is found again whatever has changed since it began, for a round trip to each host that is tried
(a longer form of the second hop of GitHub's load balancer, and what Ananta, SIGCOMM 2013, section 3.3.4, leaves open).
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from lbmux.slowpath.flow import Flow

MOST_FLOWS, MOST_SEGMENTS, FORGOTTEN_S = 4096, 64, 3.0
"""How many flows are looked for at a time, how many segments of each are told apart, and for how long after the last
packet that came back."""
Segment = tuple[int, int]
"""A TCP segment's sequence number, and the bytes of its packet."""


@dataclass
class Search:
    """One flow's, ``at`` the last packet that came back: the backends that were ``asked`` in vain, and at which one
    each segment is now."""

    at: float
    asked: set[int] = field(default_factory=set)
    places: dict[Segment, int] = field(default_factory=dict)


class Searches:
    """Which backends have said of a flow that it is not theirs.

    A client sends again while its packet is on its way from host to host.  Such a copy goes to the host that is being
    asked, and no further: else each would make the whole round, and many clients at a time would keep one another from
    being found.
    """

    def __init__(self) -> None:
        self._flows: OrderedDict[Flow, Search] = OrderedDict()

    def is_copy(self, flow: Flow, segment: Segment, refused: Sequence[int]) -> bool:
        """Whether that segment is elsewhere by now.  ``refused``: as in ``next``."""
        search = self._flows.get(flow)
        place = search.places.get(segment) if search is not None else None
        return place is not None and place not in refused

    def next(
        self, flow: Flow, segment: Segment, refused: Sequence[int], candidates: Sequence[int], now: float
    ) -> int | None:
        """The first of the ``candidates`` that has not been asked; None where all have.

        ``refused``: the backends that the host that returned the packet may have been sent it for.
        """
        self._forget(now)
        search = self._flows.pop(flow, None) or Search(now)
        self._flows[flow], search.at = search, now
        search.asked.update(refused)
        if len(self._flows) > MOST_FLOWS:
            self._flows.popitem(last=False)
        backend = next((backend for backend in candidates if backend not in search.asked), None)
        if backend is not None and (segment in search.places or len(search.places) < MOST_SEGMENTS):
            search.places[segment] = backend
        return backend

    def _forget(self, now: float) -> None:
        while self._flows:
            flow, search = next(iter(self._flows.items()))
            if now - search.at <= FORGOTTEN_S:
                break
            del self._flows[flow]
