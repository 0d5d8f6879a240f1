"""Second chance: a host returns a packet of a connection that it does not have, and the mux asks the next host.

A mux has no entry for the connections of another mux that is gone.  It sends their packets where its tables say, or
said before the last change.  Where that is wrong, the host's agent returns them, and the mux tries the other backends
in turn, so a connection is found again whatever has changed since it began, for a round trip to each host that is
tried (the second hop of GitHub's load balancer, GLB, with more than two hosts).

The state of a search is in the packet.  The outer source of a returned packet is the host that refused it; the outer
TTL says how far the search is.  A mux sends ordinary packets with a TTL of 64, those of a search with more, and the
agent returns a packet with the TTL that it came with, routers' hops added again (up to 63).  From both follows the
next candidate, and nothing has to be remembered:

- with each round (stage, host's key) grows, whatever changes in the tables meanwhile, so each search ends;
- it asks the likely backends (two at most), and of the rest so many that all are ``second_chance_max_hosts`` at most;
- the mux takes a hop from the inner packet each time, and drops it where none is left.
"""

from collections.abc import Collection
from enum import IntEnum

from lbmux.slowpath.fragment_owner import CARRIES
from lbmux.slowpath.slow_path_flow import Candidates
from lbmux.wire.packet import Packet, ip_packet


class Stage(IntEnum):
    """How far a search is: the outer TTL of the packet with which a host is asked."""

    FIRST = 64
    """An ordinary packet: nobody has been asked before."""
    ONE_LEFT = 128
    """A likely backend is asked, and another one is left."""
    LIKELY_ASKED = 192
    """The last likely backend is asked."""
    REST = 255
    """One of the rest is asked; those with a smaller key have been."""

    @classmethod
    def of(cls, hops: int) -> "Stage":
        """Of a packet that has crossed up to 63 routers."""
        return next(stage for stage in cls if hops <= stage)


def next_candidate(
    found: Candidates, stage: Stage, refused: Collection[int], refused_key: int
) -> tuple[int, Stage] | None:
    """The backend to ask next, and how; None where all have been asked.

    ``refused``: the backends at the host that returned the packet; ``refused_key``: that host's key, which only the
    last stage needs.
    """
    if stage < Stage.LIKELY_ASKED:
        left = [backend for backend in found.likely if backend not in refused]
        if left:
            is_last = stage == Stage.ONE_LEFT or len(left) == 1
            return left[0], Stage.LIKELY_ASKED if is_last else Stage.ONE_LEFT
    for backend, key in zip(found.rest, found.keys, strict=True):
        if backend not in refused and (stage < Stage.REST or key > refused_key):
            return backend, Stage.REST
    return None


def returned_packet(outer: Packet, inner: Packet) -> bytes:
    """What an agent sends to the mux: the packet that came from there in ``outer``, in IP in IP."""
    protocol, hops = CARRIES[inner.version], Stage.of(outer.hops)
    return ip_packet(
        outer.destination, outer.source, protocol, inner.data, traffic_class=inner.traffic_class, hops=hops
    )
