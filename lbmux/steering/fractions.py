"""The shares of each PoP's requests that go to each data centre: what they should be, and how they move there. Pure.

A PoP sends its requests to near data centres first, by capacity; what these have no capacity for goes farther away.
"""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from lbmux.config.steering_models import DataCentre, Pop, Steering
from lbmux.steering.measurements import Floats
from lbmux.steering.steering_map import Weights

MOST_A_SECOND = 0.1
"""The share of all requests that may move from living data centres in a second."""


ROUNDS, LEAST = 8, 1e-9
"""How often what did not fit is offered again at the same distance; the least load of a PoP, as a share of all."""
UNKNOWN = 1 << 20
"""The distance of a data centre whose round-trip time is not known, where others are."""


def wanted_fractions(steering: Steering, loads: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return each PoP's shares of data centres, for PoPs with these loads, which capacities of data centres limit.

    Data centres that are not healthy, drain, or cannot be reached from the PoP get nothing. If none is left, those
    that drain share the requests, else all.
    """
    centres, pops = steering.data_centres, steering.pops
    if not centres:
        return {pop.name: {} for pop in pops}
    capacity = np.array([centre.capacity for centre in centres])
    serves = np.array([[centre in _serving(pop, centres) for centre in centres] for pop in pops])
    distance = np.array([distances(pop, centres, steering.near_ms) for pop in pops])
    least = LEAST * (sum(loads.values()) or 1.0)
    demand = np.array([max(loads.get(pop.name, 0.0), least) for pop in pops])
    taken = _filled(demand, capacity, serves, distance)
    return {
        pop.name: {centre.name: round(float(share), 6) for centre, share in zip(centres, shares, strict=True)}
        for pop, shares in zip(pops, taken / demand[:, None], strict=True)
    }


def _serving(pop: Pop, centres: Collection[DataCentre]) -> Collection[DataCentre]:
    healthy = [centre for centre in centres if centre.healthy and centre.name not in pop.unreachable]
    return [centre for centre in healthy if not centre.draining] or healthy or centres


def distances(pop: Pop, centres: Collection[DataCentre], near_ms: float) -> list[int]:
    """Return each data centre's distance beyond the nearest one, in steps of ``near_ms``; 0 if no time is known."""
    nearest = min(pop.rtt_ms.values(), default=None)
    if nearest is None:
        return [0] * len(centres)
    times = [pop.rtt_ms.get(centre.name) for centre in centres]
    return [UNKNOWN if time_ms is None else max(0, int((time_ms - nearest) / near_ms)) for time_ms in times]


def _filled(demand: Floats, capacity: Floats, serves: NDArray[np.bool_], distance: NDArray[np.int_]) -> Floats:
    """Return the load of each PoP at each data centre: near ones first, in proportion to what they have left.

    Load for which no capacity is left is divided by capacity.
    """
    taken, left, free = np.zeros(serves.shape), demand.copy(), capacity.astype(float)
    for farthest in sorted({*distance.ravel().tolist()}):
        for _ in range(ROUNDS):
            offered = _divided(left, free * (serves & (distance <= farthest)))
            wanted = offered.sum(axis=0)
            granted = offered * np.divide(np.minimum(free, wanted), wanted, out=np.zeros(len(free)), where=wanted > 0)
            taken, free, left = taken + granted, free - granted.sum(axis=0), left - granted.sum(axis=1)
    return taken + _divided(left, capacity * serves)


def _divided(load: Floats, weights: Floats) -> Floats:
    """Divide each PoP's load by its weights; shape (PoPs, data centres). Without weights nothing is divided."""
    total = weights.sum(axis=1, keepdims=True)
    shares: Floats = np.divide(weights, total, out=np.zeros(weights.shape), where=total > 0)
    return shares * load[:, None]


def next_fractions(
    present: Weights, wanted: Weights, dead: Collection[str], most: float = MOST_A_SECOND
) -> Mapping[str, float]:
    """Return the next step from ``present`` to ``wanted``: at most ``most`` of the requests leave living data centres.

    A data centre that is dead loses its requests at once, to those that are wanted. Both add up to 1.
    """
    lost = sum(share for name, share in present.items() if name in dead or name not in wanted)
    rest = {name: 0.0 if name in dead else present.get(name, 0.0) + lost * share for name, share in wanted.items()}
    moved = sum(max(0.0, share - rest[name]) for name, share in wanted.items())
    part = 1.0 if moved <= most else most / moved
    return {name: rest[name] + part * (share - rest[name]) for name, share in wanted.items()}
