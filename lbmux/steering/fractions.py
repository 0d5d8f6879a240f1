"""The shares of a PoP's requests that go to each data centre: what they should be, and how they move there. Pure."""

from collections.abc import Collection, Mapping, Sequence

from lbmux.config.steering_models import DataCentre
from lbmux.steering.steering_map import Weights

MOST_A_SECOND = 0.1
"""The share of all requests that may move from living data centres in a second."""


def wanted_fractions(centres: Sequence[DataCentre]) -> dict[str, float]:
    """Return each data centre's share, by capacity, of those that are healthy and do not drain.

    If none is left, those that drain share the requests, else all.
    """
    healthy = [centre for centre in centres if centre.healthy]
    serving = [centre for centre in healthy if not centre.draining] or healthy or centres
    total = sum(centre.capacity for centre in serving)
    return {centre.name: round(centre.capacity / total, 6) if centre in serving else 0.0 for centre in centres}


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
