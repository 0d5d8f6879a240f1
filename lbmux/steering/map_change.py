"""What a map, such as an earlier one, would change if it replaced the present one. Pure."""

from dataclasses import dataclass

import numpy as np

from lbmux.config.steering_models import Steering
from lbmux.errors import LbmuxError
from lbmux.steering.estimates import estimate
from lbmux.steering.measurements import Floats, Groups, Latency
from lbmux.steering.steering_map import SteeringMap


@dataclass(frozen=True)
class MapChange:
    """``moved``: users whose PoP changes. ``rtt_ms``, ``rtt_ms_before``: means over the users that have a PoP."""

    steering_map: SteeringMap
    users: float
    moved: float
    rtt_ms: float
    rtt_ms_before: float | None


class UnusableMapError(LbmuxError):
    """The map uses sites that take no users or requests at present."""

    sites: tuple[str, ...]

    def __str__(self) -> str:
        return f"the map uses {', '.join(self.sites)}, which is unknown, not healthy or draining: nothing changes"


def change(
    steering: Steering, groups: Groups, latency: Latency, present: SteeringMap | None, wanted: SteeringMap, now: float
) -> MapChange:
    """Return what ``wanted`` changes at the time ``now``. Raise UnusableMapError."""
    if sites := unusable(steering, wanted):
        raise UnusableMapError(sites)
    names = [pop.name for pop in steering.pops]
    rtt_ms = estimate(groups, latency, names.index(steering.default), now, steering.max_age_s).rtt_ms
    after, before = _shares(wanted, groups, names), _shares(present, groups, names)
    had = before.sum(axis=0) > 0
    moved = np.maximum(0.0, after - before).sum(axis=0) * had
    return MapChange(
        wanted, float(groups.users.sum()), float((moved * groups.users).sum()), _mean(rtt_ms, after * groups.users),
        _mean(rtt_ms, before * groups.users) if had.any() else None,
    )  # fmt: skip


def unusable(steering: Steering, wanted: SteeringMap) -> tuple[str, ...]:
    """Return the PoPs and data centres of a map that are not healthy, drain, or are not in the configuration."""
    pops = {name for weights in wanted.groups.values() for name in weights} | {wanted.default}
    centres = {name for shares in wanted.fractions.values() for name, share in shares.items() if share}
    usable = {pop.name for pop in steering.pops if pop.healthy}
    usable_centres = {centre.name for centre in steering.data_centres if centre.healthy and not centre.draining}
    return (*sorted(pops - usable), *sorted(centres - usable_centres))


def _shares(steering_map: SteeringMap | None, groups: Groups, names: list[str]) -> Floats:
    """Return each group's share of each PoP, shape (PoPs, groups); zeros for a group without an answer."""
    shares = np.zeros((len(names), len(groups.prefixes)))
    at = {name: number for number, name in enumerate(names)}
    for group, prefix in enumerate(groups.prefixes if steering_map is not None else ()):
        assert steering_map is not None
        for name, share in steering_map.groups.get(prefix, {}).items():
            if name in at:
                shares[at[name], group] = share
    return shares


def _mean(rtt_ms: Floats, users: Floats) -> float:
    return float((rtt_ms * users).sum() / users.sum()) if users.any() else 0.0
