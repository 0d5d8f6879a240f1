"""Explains why a client group goes to its PoP: the latency to each PoP, and its age. Pure."""

from dataclasses import dataclass

import numpy as np

from lbmux.config.steering_models import Steering
from lbmux.errors import LbmuxError
from lbmux.steering.measurements import Groups, Latency, Network
from lbmux.steering.steering_plan import Plan


class UnknownGroupError(LbmuxError):
    """No group contains the prefix; its clients get the default answer."""

    prefix: Network
    default: str

    def __str__(self) -> str:
        return f"{self.prefix}: no group contains it; its clients go to {self.default}, the default"


@dataclass(frozen=True)
class PopReason:
    """One PoP as a group sees it. ``share``: the share of the group's users that go there.

    ``rtt_ms`` decides the choice; ``low_ms``, ``high_ms``, ``samples`` and ``age_s`` are None without samples of the
    group itself. ``full_ms``: the penalty of a PoP with more demand than capacity.
    """

    pop: str
    share: float
    healthy: bool
    rtt_ms: float
    low_ms: float | None
    high_ms: float | None
    samples: int | None
    age_s: float | None
    full_ms: float


@dataclass(frozen=True)
class Explanation:
    """``source``: `measured`, or what the latencies are estimated from. ``pops``: the best first."""

    group: str
    users: float
    resolver: str
    source: str
    pops: tuple[PopReason, ...]


def explain(
    wanted: Network, steering: Steering, groups: Groups, latency: Latency, plan: Plan, now: float
) -> Explanation:
    """Explain the choice for the group that contains a prefix; raise UnknownGroupError if there is none."""
    at = groups.find(wanted)
    if at is None:
        raise UnknownGroupError(wanted, plan.steering_map.default)
    prefix = groups.prefixes[at]
    weights, row = plan.steering_map.groups[prefix], latency.rows.get(prefix)
    reasons = []
    for number, (pop, summary) in enumerate(zip(steering.pops, plan.pops, strict=True)):
        own: tuple[float | None, float | None, int | None, float | None] = None, None, None, None
        if row is not None and not np.isnan(latency.rtt_ms[number, row]):
            low_ms, high_ms, samples, time = (
                float(values[number, row])
                for values in (latency.low_ms, latency.high_ms, latency.samples, latency.time)
            )
            own = low_ms, high_ms, int(samples), now - time
        rtt_ms = float(plan.estimates.rtt_ms[number, at])
        reasons.append(PopReason(
            pop.name, weights.get(pop.name, 0.0), pop.healthy, rtt_ms, *own, full_ms=summary.price_ms
        ))  # fmt: skip
    reasons.sort(key=lambda one: (not one.healthy, one.rtt_ms + one.full_ms))
    return Explanation(
        str(prefix), float(groups.users[at]), groups.resolvers[at], plan.estimates.sources[at], tuple(reasons)
    )  # fmt: skip
