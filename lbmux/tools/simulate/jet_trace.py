"""A synthetic trace of the size of JET's example: connections, and servers that leave and join.

Mendelson et al., "Load Balancing with JET", CoNEXT 2021; the example of the authors' repository (anchorhash/jetlb) has
468 servers, 70 in the horizon, 4,687,530 connections in 1000 s of which about 100,000 are live, and 10 removals a
minute.  Arrivals, lengths, gaps and downtimes come from distributions of our own, not from their traces.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REMOVE, ADD = 0, 1
SHORT, USUAL = 0.5, 0.9
"""Shares: half of the connections last up to a second, most others some seconds, a tenth minutes."""
SHORTEST_S, SHORT_S, USUAL_S, LONG_S = 0.001, 1.0, 12.0, 165.0
DOWN_S = (120.0, 180.0)
"""Range of the downtime of most servers; one in ten is down for LONG_DOWN_S on average."""
LONG_DOWN_S, LONG_DOWN = 600.0, 0.1


@dataclass(frozen=True)
class JetTrace:
    """``horizon``: number of servers that are known to join next.  ``removals_per_min``: each is followed by an
    addition when the server would be back.  ``gap_s``: mean time between packets of a connection."""

    servers: int = 468
    horizon: int = 70
    connections: int = 4_687_530
    seconds: float = 1000.0
    removals_per_min: float = 10.0
    gap_s: float = 5.0
    seed: int = 1

    def arrivals(self) -> NDArray[np.float64]:
        """Return the start times of the connections, in seconds, in order: a Poisson process of this many."""
        return np.sort(np.random.default_rng([self.seed, 1]).uniform(0, self.seconds, self.connections))

    def changes(self) -> list[tuple[float, int]]:
        """Return times in seconds, and REMOVE or ADD, in order."""
        rng = np.random.default_rng([self.seed, 2])
        expected = self.removals_per_min * self.seconds / 60
        removals = np.sort(rng.uniform(0, self.seconds, rng.poisson(expected)))
        down = rng.uniform(*DOWN_S, len(removals))
        is_long = rng.uniform(size=len(removals)) < LONG_DOWN
        down[is_long] = rng.exponential(LONG_DOWN_S, int(is_long.sum()))
        events = [(float(time), REMOVE) for time in removals]
        events += [(float(time), ADD) for time in removals + down if time < self.seconds]
        return sorted(events)


def mean_length_s() -> float:
    """Return the mean length of a connection, in seconds."""
    short = (SHORT_S - SHORTEST_S) / np.log(SHORT_S / SHORTEST_S)
    return float(SHORT * short + (USUAL - SHORT) * USUAL_S + (1 - USUAL) * LONG_S)
