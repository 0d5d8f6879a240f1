"""Latencies of all groups to all PoPs: measured, or estimated from the nearest measurements. Pure.

A group without recent samples of its own has those of the longest prefix around it that has some. If there is none, it
has the mean of the groups behind its resolver, weighted by users, so that it goes where the resolver's other clients
go. Without these too, it prefers the default PoP.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lbmux.steering.measurements import Floats, Groups, Latency, covering

UNKNOWN_MS = 300.0
"""A PoP without any measurement counts as worse than all others by this much."""
MEASURED, BY_DEFAULT = "measured", "default"


@dataclass(frozen=True)
class Estimates:
    """``rtt_ms``, ``is_measured``: shape (PoPs, groups), without gaps. ``sources``: one word for each group."""

    rtt_ms: Floats
    is_measured: NDArray[np.bool_]
    sources: tuple[str, ...]


def estimate(groups: Groups, latency: Latency, default: int, now: float, max_age_s: float) -> Estimates:
    """Return a latency for each group and PoP; ``default``: the index of the default PoP."""
    recent = latency.recent_ms(now, max_age_s)
    empty: Floats = np.full(recent.shape[0], np.nan)
    own = np.stack([recent[:, row] if (row := latency.rows.get(prefix)) is not None else empty
                    for prefix in groups.prefixes], axis=1)  # fmt: skip
    is_measured = ~np.isnan(own)
    has_some = np.asarray(is_measured.any(axis=0))
    by_resolver = _by_resolver(groups, own, has_some)
    rtt_ms, sources = own.copy(), [MEASURED] * len(groups.prefixes)
    for at in np.flatnonzero(~has_some):
        around = (one for one in covering(groups.prefixes[at]) if one in latency.rows)
        prefix = next((one for one in around if not np.isnan(recent[:, latency.rows[one]]).all()), None)
        resolver = groups.resolvers[at]
        if prefix is not None:
            rtt_ms[:, at], sources[at] = recent[:, latency.rows[prefix]], f"prefix {prefix}"
        elif resolver in by_resolver:
            rtt_ms[:, at], sources[at] = by_resolver[resolver], f"resolver {resolver}"
        else:
            rtt_ms[default, at], sources[at] = 0.0, BY_DEFAULT
    worst = np.nanmax(rtt_ms, axis=0) + UNKNOWN_MS
    return Estimates(np.where(np.isnan(rtt_ms), worst, rtt_ms), is_measured, tuple(sources))


def _by_resolver(groups: Groups, own: Floats, has_some: NDArray[np.bool_]) -> dict[str, Floats]:
    """Return the mean latency to each PoP of the measured groups behind each resolver; NaN where none is known."""
    members: dict[str, list[int]] = {}
    for at in np.flatnonzero(has_some):
        members.setdefault(groups.resolvers[at], []).append(int(at))
    members.pop("", None)
    means: dict[str, Floats] = {}
    for resolver, some in members.items():
        known = ~np.isnan(own[:, some])
        users = groups.users[some] * known
        with np.errstate(invalid="ignore"):
            means[resolver] = np.nansum(own[:, some] * users, axis=1) / users.sum(axis=1)
    return means
