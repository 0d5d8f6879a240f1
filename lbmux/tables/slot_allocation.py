"""Allocates ranges of the slot region for Maglev tables.

A table that changes gets a new range before its service is switched.  A reload therefore never writes where a packet
may be reading, and a service that does not change costs nothing.
"""

from collections.abc import Iterable

from lbmux.errors import TableError

Range = tuple[int, int]
"""(first slot, number of slots)"""
LONGEST_RUN = 1 << 20
"""Slots that are worked on at a time: some megabytes."""


def runs(places: Iterable[Range], longest: int = LONGEST_RUN) -> list[Range]:
    """Return ranges as few: those beside each other are joined up to the ``longest``.  Empty ones are left out."""
    joined: list[Range] = []
    for start, length in sorted(place for place in places if place[1]):
        at, before = joined[-1] if joined else (start, 0)
        if at + before == start and before and before + length <= longest:
            joined[-1] = (at, before + length)
        else:
            joined.append((start, length))
    return joined


class Gaps:
    """The space below ``limit`` that none of the ``taken`` ranges has.

    All ranges of one plan are taken from it in turn, so the gaps are found once.
    """

    def __init__(self, limit: int, taken: Iterable[Range], table: str = "slots") -> None:
        self._limit, self._table, self._used = limit, table, 0
        self._gaps: list[Range] = []
        at = 0
        for start, length in sorted(place for place in taken if place[1]):
            if start > at:
                self._gaps.append((at, start - at))
            at = max(at, start + length)
            self._used += length
        if at < limit:
            self._gaps.append((at, limit - at))

    def take(self, size: int) -> int:
        """Return the first slot of the first gap that has ``size`` slots; raise TableError if none has."""
        for number, (at, length) in enumerate(self._gaps):
            if length >= size:
                self._gaps[number] = (at + size, length - size)
                self._used += size
                return at
        raise TableError(self._table, self._used + size, self._limit)
