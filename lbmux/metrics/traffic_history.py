"""The last 15 minutes of a node's traffic, a point for each second.  Pure: the caller has clock and counters."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from lbmux.api.answers import HistoryPoint

SECONDS = 900
MOST_FILLED_S = 10
"""A longer gap between two samples stays unknown; a shorter one gets its average."""


@dataclass(frozen=True)
class TrafficTotals:
    """Counters since the tables were made.  ``drops`` by verdict; ``new_flows``: None if they are not counted."""

    packets: int
    bytes: int
    new_flows: int | None
    drops: Mapping[str, int]


class TrafficHistory:
    """Points by second since 1970, oldest first.  A second without a point is unknown."""

    def __init__(self) -> None:
        self._points: deque[HistoryPoint] = deque(maxlen=SECONDS)
        self._second: int | None = None
        self._totals: TrafficTotals | None = None

    def sample(self, second: int, totals: TrafficTotals) -> None:
        """Add the points since the last sample; a second sample of a second is ignored.

        A counter that went back was reset with new tables, and a clock that went back would give two points for a
        second: either makes a gap.
        """
        before, last = self._totals, self._second
        if second == last:
            return
        self._totals, self._second = totals, second
        if before is None or last is None or _went_back(before, totals):
            return
        if second < last:
            self._points = deque((one for one in self._points if one.second < second), SECONDS)
            return
        seconds = second - last
        if seconds <= MOST_FILLED_S:
            for filled in range(last + 1, second + 1):
                self._points.append(_point(filled, before, totals, seconds))

    def since(self, second: int) -> list[HistoryPoint]:
        """Return the points after ``second``."""
        return [one for one in self._points if one.second > second]


def _went_back(before: TrafficTotals, after: TrafficTotals) -> bool:
    return (
        after.packets < before.packets
        or after.bytes < before.bytes
        or (after.new_flows or 0) < (before.new_flows or 0)
        or any(after.drops.get(name, 0) < count for name, count in before.drops.items())
    )


def _point(second: int, before: TrafficTotals, after: TrafficTotals, seconds: int) -> HistoryPoint:
    drops = {name: (count - before.drops.get(name, 0)) / seconds for name, count in after.drops.items()}
    return HistoryPoint(
        second,
        (after.packets - before.packets) / seconds,
        (after.bytes - before.bytes) / seconds,
        None if after.new_flows is None else (after.new_flows - (before.new_flows or 0)) / seconds,
        {name: rate for name, rate in drops.items() if rate},
    )
