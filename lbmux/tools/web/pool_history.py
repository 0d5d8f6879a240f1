"""The history of a pool: what its muxes say of the last 15 minutes, and the sums over them.

Each mux keeps its own history, so a page that is opened late, or a server that was restarted, has all of it.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from lbmux.api.answers import History, HistoryEvent, HistoryPoint
from lbmux.metrics.recent_log import MOST_LINES
from lbmux.metrics.traffic_history import SECONDS

FIELDS = ("packets", "bytes", "new_flows")


class PoolHistory:
    """The points and events of each mux, by name."""

    def __init__(self) -> None:
        self._points: dict[str, dict[int, HistoryPoint]] = defaultdict(dict)
        self._events: dict[str, list[HistoryEvent]] = defaultdict(list)

    def add(self, mux: str, history: History) -> None:
        """Add what a mux said after ``last``."""
        points = self._points[mux]
        points.update({one.second: one for one in history.points})
        for second in sorted(points)[:-SECONDS]:
            del points[second]
        known = self._events[mux]
        last = known[-1].time if known else 0.0
        self._events[mux] = [*known, *(one for one in history.events if one.time > last)][-MOST_LINES:]

    def last(self, mux: str) -> int:
        """Return the last second of a mux that is known, since 1970."""
        return max(self._points[mux], default=0)

    def latest(self, mux: str) -> HistoryPoint | None:
        points = self._points[mux]
        return points[max(points)] if points else None

    def points(self, muxes: Iterable[str], since: int = 0) -> list[dict[str, Any]]:
        """Return the sums over the muxes by second, oldest first, up to the last second that all of them have.

        ``muxes``, of a sum: how many of them are in it.
        """
        known = [self._points[mux] for mux in muxes if self._points[mux]]
        until, of_second = min(map(max, known), default=0), defaultdict[int, list[HistoryPoint]](list)
        for points in known:
            for second, point in points.items():
                if since < second <= until:
                    of_second[second].append(point)
        return [_sum(second, of_second[second]) for second in sorted(of_second)[-SECONDS:]]

    def events(self, muxes: Iterable[str], since: float = 0.0) -> list[dict[str, Any]]:
        """Return the muxes' log lines, oldest first."""
        lines = [vars(one) | {"mux": mux} for mux in muxes for one in self._events[mux] if one.time > since]
        return sorted(lines, key=lambda line: float(line["time"]))[-MOST_LINES:]


def _sum(second: int, points: Sequence[HistoryPoint]) -> dict[str, Any]:
    drops: dict[str, float] = defaultdict(float)
    for point in points:
        for verdict, rate in point.drops.items():
            drops[verdict] += rate
    sums = {name: round(sum(getattr(point, name) or 0 for point in points), 1) for name in FIELDS}
    return {
        "second": second,
        "muxes": len(points),
        "drops": {name: round(one, 1) for name, one in drops.items()},
    } | sums
