"""Second chance: a host returns a packet of a connection that it does not have, and the mux tries the next host.

A mux has no entries for the connections of a mux that has failed. It sends their packets to the backend that its tables
give, or gave before the last change. If that is the wrong host, the host's agent returns them, and the mux tries the
other backends in turn. A connection is therefore found again whatever has changed since it began, at the cost of one
round trip per host (GLB's second chance, with more than two hosts).

The packet carries the state of the search. The outer source of a returned packet is the host that refused it; the outer
TTL encodes the stage. A mux sends ordinary packets with a TTL of 64 and those of a search with more, and the agent
returns a packet with the TTL that the mux sent, rounded up to undo the routers' decrements (up to 63). Both determine
the next candidate, so the mux keeps no state:

- (stage, host's key) grows with each round, whatever changes in the tables meanwhile, so each search ends;
- a search tries the likely backends (at most two) and then others, at most ``second_chance_max_hosts`` in total;
- the mux decrements the inner TTL in each round and drops the packet when it reaches zero.
"""

from collections.abc import Collection
from enum import IntEnum

from lbmux.slowpath.slow_path_flow import Candidates
from lbmux.wire.numbers import IP_IN_IP
from lbmux.wire.packet import Packet, ip_packet


class SearchStage(IntEnum):
    """The stage of a search: the outer TTL of the packet to the host."""

    FIRST = 64
    """An ordinary packet: no host has been tried."""
    ONE_LEFT = 128
    """A likely backend is tried, and another one is left."""
    LIKELY_ASKED = 192
    """The last likely backend is tried."""
    REST = 255
    """One of the rest is tried; those with smaller keys have been tried."""

    @classmethod
    def of(cls, hops: int) -> "SearchStage":
        """Return the stage of a packet that has crossed up to 63 routers."""
        return next(stage for stage in cls if hops <= stage)


def next_candidate(
    candidates: Candidates, stage: SearchStage, refused: Collection[int], refused_key: int
) -> tuple[int, SearchStage] | None:
    """Return the next backend and the stage, or None if all have been tried.

    ``refused`` are the backends at the host that returned the packet. ``refused_key`` is that host's key, which only
    the last stage needs.
    """
    if stage < SearchStage.LIKELY_ASKED:
        left = [backend for backend in candidates.likely if backend not in refused]
        if left:
            is_last = stage == SearchStage.ONE_LEFT or len(left) == 1
            return left[0], SearchStage.LIKELY_ASKED if is_last else SearchStage.ONE_LEFT
    for backend, key in zip(candidates.rest, candidates.keys, strict=True):
        if backend not in refused and (stage < SearchStage.REST or key > refused_key):
            return backend, SearchStage.REST
    return None


def returned_packet(outer: Packet, inner: Packet) -> bytes:
    """Build the packet with which an agent returns ``inner``, which came in ``outer``, to the mux in IP in IP."""
    protocol, hops = IP_IN_IP[inner.version], SearchStage.of(outer.hops)
    return ip_packet(
        outer.destination, outer.source, protocol, inner.data, traffic_class=inner.traffic_class, hops=hops
    )
