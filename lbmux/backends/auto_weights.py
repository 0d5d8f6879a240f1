"""Weights of backends with `weight: auto`, by the load that the agents of their hosts report.  Pure.

A backend that carries more load than the median of its service gets a lower weight, one that carries less a higher one.
The median stays where it is while a single backend is overloaded. Connections in an accept queue say little until a
server is too slow, and then much; therefore a step follows the square root of the ratio, within bounds, and small
differences change nothing. Agents report one after another, so a load that changes everywhere looks different at first;
therefore a difference counts if two reports in a row show it. A weight that is too high hurts at once, one that is too
low hardly: it takes four reports to raise one, else it would rise after a few quiet seconds and soon fall again.
"""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lbmux.backends.overrides import AdminState
from lbmux.config.field_types import AUTO_WEIGHT, AutoWeight
from lbmux.config.models import BackendKey, Service
from lbmux.health.load import LOAD_S, Load

CHANGE_S, RECENT_S = LOAD_S, 3 * LOAD_S
"""Shortest time between two changes of a weight, and the age up to which a report counts, in seconds."""
RETURN_S = 120.0
"""Time without a change after which a weight moves one least step towards its first value, in seconds: a server that
waits for something else than its CPU shows no spare capacity, so its weight would stay low."""
LEAST_STEP, LEAST_DIFFERENCE = 0.05, 0.2
"""The smallest change of a weight, and the smallest difference from 1 of the factor that is wanted."""
TREND = 0.5
"""A load that has changed by this part since the last report, towards the median, is left alone."""
LOWER_AFTER, RAISE_AFTER = 2, 4
"""How many reports in a row have to ask for a lower or a higher weight."""
FACTORS = 0.75, 1.25
WEIGHTS = 10, 1000
IDLE_LOAD = 0.25
"""Loads below this count as equal: a service without traffic keeps its weights."""


@dataclass
class Follower:
    """A backend whose weight follows its load, and the times of its last change and of its last report."""

    weight: int
    changed: float
    factor: float = 1.0
    """What the last report asked for."""
    asked: int = 0
    """How many reports in a row have asked for a change in this direction."""
    load: float = 0.0
    reported: float = -float("inf")


class AutoWeights:
    """The weights that are in force. Times are of any steady clock, in seconds."""

    def __init__(self) -> None:
        self._of = dict[BackendKey, Follower]()

    @property
    def weights(self) -> dict[BackendKey, int]:
        return {key: one.weight for key, one in self._of.items()}

    def configure(
        self, services: Iterable[Service], admin_states: Mapping[BackendKey, AdminState],
        known: Mapping[BackendKey, int], now: float,
    ) -> None:  # fmt: skip
        """Follow the backends with `weight: auto` that take new flows; ``known``: weights of those not followed yet."""
        keys = [
            (service.name, one.name)
            for service in services for one in service.backends if isinstance(one.weight, AutoWeight)
        ]  # fmt: skip
        self._of = {
            key: self._of.get(key) or Follower(known.get(key, int(AUTO_WEIGHT)), now)
            for key in keys if key not in admin_states
        }  # fmt: skip

    def report(self, key: BackendKey, load: Iterable[float], now: float) -> bool:
        """Take the report about a backend, with the fields of its `Load`; return whether its weight changes."""
        one, load = self._of.get(key), Load(*load)
        if one is None or not math.isfinite(load.total):
            return False
        before, one.load, one.reported = one.load, max(load.total, IDLE_LOAD), now
        loads = [
            other.load for (service, _), other in self._of.items()
            if service == key[0] and now - other.reported < RECENT_S
        ]  # fmt: skip
        weight = _next(one, statistics.median(loads), one.load / before if before else 1.0, now)
        if weight == one.weight:
            return False
        one.weight, one.changed, one.factor, one.asked = weight, now, 1.0, 0
        return True


def _next(one: Follower, median: float, trend: float, now: float) -> int:
    """Return the weight by a new report; ``trend``: the load as a multiple of that of the report before."""
    before, one.factor = one.factor, min(max((median / one.load) ** 0.5, FACTORS[0]), FACTORS[1])
    is_off, falls = abs(one.factor - 1) >= LEAST_DIFFERENCE, one.factor < 1
    one.asked = 0 if not is_off else one.asked + 1 if falls == (before < 1) else 1
    is_sure = one.asked >= (LOWER_AFTER if falls else RAISE_AFTER)
    improves = trend < 1 - TREND if falls else trend > 1 + TREND
    if is_sure and not improves and now - one.changed >= CHANGE_S:
        wanted = round(one.weight * one.factor)
    elif not is_off and now - one.changed >= RETURN_S:
        wanted = _towards(int(AUTO_WEIGHT), one.weight)
    else:
        return one.weight
    wanted = min(max(wanted, WEIGHTS[0]), WEIGHTS[1])
    return wanted if abs(wanted - one.weight) >= LEAST_STEP * one.weight else one.weight


def _towards(first: int, weight: int) -> int:
    """Return the weight one least step nearer to its first value."""
    if weight < first:
        return min(math.ceil(weight * (1 + LEAST_STEP)), first)
    return max(math.floor(weight * (1 - LEAST_STEP)), first)
