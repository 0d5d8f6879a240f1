"""Computes a new map from measurements, PoPs and the present map, and what it changes. Pure.

A group over 1 % of the users is divided into parts, which may go to different PoPs; its answer then has weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lbmux.config.steering_models import Steering
from lbmux.errors import LbmuxError
from lbmux.steering.assignment import Floats, Indexes, assign
from lbmux.steering.estimates import MEASURED, Estimates, estimate
from lbmux.steering.exploration import FULL, explored
from lbmux.steering.fractions import wanted_fractions
from lbmux.steering.measurements import Groups, Latency
from lbmux.steering.pop_routes import pop_routes
from lbmux.steering.steering_map import SteeringMap, Weights

DIVIDED_FROM = 0.01
"""Groups with a larger share of the users get weighted answers."""
PARTS = 20
"""Number of equal parts of a divided group: weights are multiples of 5 %."""


class NoPopError(LbmuxError):
    """No PoP is healthy, so there is no map: the present one should stay."""

    def __str__(self) -> str:
        return "no PoP is healthy: the map in force stays"


@dataclass(frozen=True)
class PopSummary:
    """``price_ms``: the penalty, as a round-trip time, that limits demand to a full PoP's capacity; else 0."""

    name: str
    users: float
    users_before: float
    load: float
    capacity: float
    price_ms: float


@dataclass(frozen=True)
class Plan:
    """``gap``: an upper bound of the map's distance from the optimum, as a share of its cost.

    ``rtt_ms`` and ``rtt_ms_before``: means over the users. ``moved``: users whose PoP changes; ``moved_from_dead``:
    those among them whose PoP is not healthy. ``overload``: load beyond all capacities together.
    """

    steering_map: SteeringMap
    estimates: Estimates
    pops: tuple[PopSummary, ...]
    users: float
    moved: float
    moved_from_dead: float
    rtt_ms: float
    rtt_ms_before: float | None
    gap: float
    overload: float


@dataclass(frozen=True)
class _Parts:
    """The parts of all groups: ``group`` is the index of each part's group, ``present`` its PoP in force, or -1."""

    group: Indexes
    users: Floats
    present: Indexes


def plan(steering: Steering, groups: Groups, latency: Latency, present: SteeringMap | None, now: float) -> Plan:
    """Return the map for the time ``now``. Raise NoPopError if no PoP is healthy."""
    names = [pop.name for pop in steering.pops]
    live = np.array([at for at, pop in enumerate(steering.pops) if pop.healthy], dtype=np.intp)
    if not len(live):
        raise NoPopError()
    estimates = estimate(groups, latency, names.index(steering.default), now, steering.max_age_s)
    parts = _divide(groups, names, present)
    rtt_ms = estimates.rtt_ms[:, parts.group]
    stays = np.arange(len(names))[:, None] == parts.present
    is_new = parts.present < 0
    cost = parts.users * (rtt_ms + steering.move_cost_ms * ~(stays | is_new))
    capacity = np.array([pop.capacity for pop in steering.pops])
    load = parts.users * _load_of_a_user(steering, groups)
    solved = assign(cost[live], load, capacity[live])
    chosen = live[solved.pops]
    summaries = _summaries(steering, parts, load, chosen, _everywhere(solved.prices, live, capacity))
    loads = {pop.name: pop.load for pop in summaries}
    steering_map = replace(
        _map(steering, groups, estimates, parts, chosen),
        fractions=wanted_fractions(steering, loads),
        dead=frozenset(centre.name for centre in steering.data_centres if not centre.healthy),
        routes=pop_routes(steering, {pop.name: pop.users for pop in summaries}, loads, present),
    )
    return _summary(Plan(
        steering_map, estimates, summaries, float(groups.users.sum()), 0, 0, 0, None, max(0.0, solved.gap),
        max(0.0, float(load.sum() - capacity[live].sum())),
    ), parts, rtt_ms, chosen, live)  # fmt: skip


def _divide(groups: Groups, names: list[str], present: SteeringMap | None) -> _Parts:
    """Divide large groups, and give the parts the PoPs of the present map, in proportion to its weights."""
    large = groups.users > DIVIDED_FROM * groups.users.sum()
    count = np.where(large, PARTS, 1)
    group = np.repeat(np.arange(len(count)), count)
    now = np.full(len(group), -1, dtype=np.intp)
    starts = np.cumsum(count) - count
    at = {name: number for number, name in enumerate(names)}
    for number, prefix in enumerate(groups.prefixes if present else ()):
        assert present is not None
        weights = present.groups.get(prefix, {})
        begin, share = int(starts[number]), 0.0
        for name, weight in weights.items():
            first, share = begin + round(share * count[number]), share + weight
            now[first : begin + round(share * count[number])] = at.get(name, -1)
    return _Parts(group, (groups.users / count)[group], now)


def _load_of_a_user(steering: Steering, groups: Groups) -> float:
    """Return the present load of all PoPs for each user; 1 where no load is given."""
    loads = [pop.load for pop in steering.pops if pop.load is not None]
    return (sum(loads) or groups.users.sum()) / float(groups.users.sum()) if loads else 1.0


def _everywhere(prices: Floats, live: Indexes, capacity: Floats) -> Floats:
    result = np.zeros(len(capacity))
    result[live] = prices
    return result


def _map(steering: Steering, groups: Groups, estimates: Estimates, parts: _Parts, chosen: Indexes) -> SteeringMap:
    names = [pop.name for pop in steering.pops]
    shares: list[dict[str, float]] = [{} for _ in groups.prefixes]
    size = 1 / np.bincount(parts.group)[parts.group]
    for group, pop, share in zip(parts.group.tolist(), chosen.tolist(), size.tolist(), strict=True):
        shares[group][names[pop]] = round(shares[group].get(names[pop], 0.0) + share, 9)
    weights: Sequence[Weights] = shares
    users: Floats = np.bincount(chosen, parts.users, len(names)).astype(float)
    if steering.explore:
        weights = _explored(steering, groups, estimates, weights, users)
    is_live = {pop.name: pop.healthy for pop in steering.pops}
    default = steering.default if is_live[steering.default] else names[int(users.argmax())]
    estimated = (prefix for prefix, one in zip(groups.prefixes, estimates.sources, strict=True) if one != MEASURED)
    return SteeringMap(
        steering.name, steering.ttl_s, {pop.name: tuple(map(str, pop.addresses)) for pop in steering.pops},
        dict(zip(groups.prefixes, weights, strict=True)), default, frozenset(estimated),
        _resolvers(groups, parts, chosen, names),
    )  # fmt: skip


def _explored(
    steering: Steering, groups: Groups, estimates: Estimates, weights: Sequence[Weights], users: Floats
) -> list[Weights]:
    capacity = np.array([pop.capacity if pop.healthy else 0.0 for pop in steering.pops])
    has_capacity = users * _load_of_a_user(steering, groups) < FULL * capacity
    names = [pop.name for pop in steering.pops]
    return explored(weights, estimates.rtt_ms, groups.users, has_capacity, names, steering.explore)


def _resolvers(groups: Groups, parts: _Parts, chosen: Indexes, names: list[str]) -> dict[str, str]:
    """Return, for each resolver, the PoP of most of the users behind it."""
    known = sorted({*groups.resolvers} - {""})
    at = {resolver: number for number, resolver in enumerate(known)}
    behind = np.array([at.get(resolver, -1) for resolver in groups.resolvers], dtype=np.intp)[parts.group]
    users, mine = np.zeros((len(known), len(names))), behind >= 0
    np.add.at(users, (behind[mine], chosen[mine]), parts.users[mine])
    return {resolver: names[int(users[number].argmax())] for resolver, number in at.items()}


def _summaries(
    steering: Steering, parts: _Parts, load: Floats, chosen: Indexes, prices: Floats
) -> tuple[PopSummary, ...]:
    count, known = len(steering.pops), parts.present >= 0
    users, loads = np.bincount(chosen, parts.users, count), np.bincount(chosen, load, count)
    before = np.bincount(parts.present[known], parts.users[known], count)
    a_user = float(load.sum() / parts.users.sum())
    return tuple(
        PopSummary(
            pop.name, float(users[at]), float(before[at]), float(loads[at]),
            pop.capacity if pop.healthy else 0.0, float(prices[at] * a_user),
        )
        for at, pop in enumerate(steering.pops)
    )  # fmt: skip


def _summary(plan: Plan, parts: _Parts, rtt_ms: Floats, chosen: Indexes, live: Indexes) -> Plan:
    """Fill in the number of users that move, and their latencies."""
    known, each = parts.present >= 0, np.arange(len(chosen))
    moves = known & (parts.present != chosen)
    is_dead = known & ~np.isin(parts.present, live)
    return replace(
        plan, moved=float(parts.users[moves].sum()), moved_from_dead=float(parts.users[moves & is_dead].sum()),
        rtt_ms=_mean(rtt_ms[chosen, each], parts.users),
        rtt_ms_before=_mean(rtt_ms[parts.present, each][known], parts.users[known]) if known.any() else None,
    )  # fmt: skip


def _mean(values: Floats, users: Floats) -> float:
    return float((values * users).sum() / users.sum())
