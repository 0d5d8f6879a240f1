"""Allocates ranges of the slot region for Maglev tables.

A table that changes gets a new range before its service is switched.  A reload therefore never writes where a packet
may be reading, and a service that does not change costs nothing.
"""

from collections.abc import Iterable

from lbmux.errors import TableError

Range = tuple[int, int]
"""(first slot, number of slots)"""


def allocate(limit: int, taken: Iterable[Range], size: int, table: str = "slots") -> int:
    """Return the first gap of ``size`` slots among ``taken`` ranges below ``limit``; raise TableError if none fits."""
    at = 0
    held = sorted(place for place in taken if place[1])
    for start, length in held:
        if start - at >= size:
            return at
        at = max(at, start + length)
    if limit - at >= size:
        return at
    raise TableError(table, size + sum(length for _, length in held), limit)
