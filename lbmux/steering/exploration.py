"""A small share of each group's sessions for its second-best PoP, so that the latency there stays known. Pure."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lbmux.steering.measurements import Floats
from lbmux.steering.steering_map import Weights

FULL = 0.9
"""A PoP over this share of its capacity gets no sessions to explore it."""
MOST_PAIRS = 150
"""Number of different pairs of PoPs; a DNS server supports few different answers. The pairs of most users count."""


def explored(
    weights: Sequence[Weights],
    rtt_ms: Floats,
    users: Floats,
    has_capacity: NDArray[np.bool_],
    names: Sequence[str],
    share: float,
) -> list[Weights]:
    """Return the weights of the groups, with ``share`` for the second-best PoP of each group that has one PoP.

    ``rtt_ms``: shape (PoPs, groups). ``has_capacity``: which PoPs are healthy and below 90 % of their capacity.
    """
    pairs = dict[int, tuple[str, str]]()
    for group, mine in enumerate(weights):
        if len(mine) == 1:
            (best,) = mine
            others = np.where(has_capacity & (np.array(names) != best), rtt_ms[:, group], np.inf)
            if np.isfinite(others.min()):
                pairs[group] = best, names[int(others.argmin())]
    by_users = Counter[tuple[str, str]]()
    for group, pair in pairs.items():
        by_users[pair] += round(users[group])
    kept = {pair for pair, _ in by_users.most_common(MOST_PAIRS)}
    return [
        {pairs[group][0]: round(1 - share, 9), pairs[group][1]: share} if pairs.get(group) in kept else mine
        for group, mine in enumerate(weights)
    ]
