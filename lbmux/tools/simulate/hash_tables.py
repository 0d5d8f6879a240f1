"""Builds the tables with which Maglev is compared: Karger's consistent hashing and rendezvous hashing.

A table maps slots to backends.  Hashes are ideal: random numbers from a seeded generator.
"""

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lbmux.codegen.compiled import compiled_nogil
from lbmux.datapath.memory import step, u64
from lbmux.tools.simulate.random_numbers import GOLDEN, mix

FREE = 0xFFFFFFFF


def karger_by_views(rng: Generator, backends: int, size: int, views: int) -> NDArray[np.uint32]:
    """Karger's hashing as a table that is filled view by view (Karger et al., STOC 1997, section 4).

    In each view every backend hashes to one slot and takes it unless it is taken; a slot that stays free belongs to
    the next taken slot.  The Maglev paper gives the number of views, 1000, but not how it fills the table: this way
    reproduces its figures, a ring of points (`karger_ring`) does not.
    """
    table = np.full(size, FREE, np.uint32)
    for _ in range(views):
        _take_free(rng.integers(0, size, backends, np.uint32), table)
    _next_taken(table)
    return table


def karger_ring(rng: Generator, backends: int, size: int, views: int) -> NDArray[np.uint32]:
    """Karger's hashing as a ring with ``views`` random points for each backend; a slot belongs to the next point."""
    points = rng.integers(0, 1 << 62, backends * views, np.uint64)
    order = np.argsort(points)
    starts = np.arange(size, dtype=np.uint64) * np.uint64((1 << 62) // size)
    owners = np.searchsorted(points[order], starts) % len(points)
    table: NDArray[np.uint32] = (order[owners] // views).astype(np.uint32)
    return table


def rendezvous(rng: Generator, backends: int, size: int) -> NDArray[np.uint32]:
    """Rendezvous hashing (Thaler and Ravishankar, 1998): each slot belongs to the backend with the highest score."""
    table = np.empty(size, np.uint32)
    highest(rng.integers(0, 1 << 64, backends, np.uint64), np.arange(size), table)
    return table


@step
def score(seed, slot):  # type: ignore[no-untyped-def]
    """Return a backend's score in a slot."""
    return mix(u64(seed) ^ (u64(slot) * u64(GOLDEN)))


@compiled_nogil
def highest(seeds: NDArray[np.uint64], slots: NDArray[np.int64], table: NDArray[Any]) -> None:
    """Write the index of the highest score to the table, for these slots."""
    for slot in slots:
        best, most = 0, u64(0)
        for backend in range(len(seeds)):
            reached = score(seeds[backend], slot)
            if reached >= most:
                best, most = backend, reached
        table[slot] = best


@compiled_nogil
def _take_free(wanted: NDArray[np.uint32], table: NDArray[np.uint32]) -> None:
    for backend in range(len(wanted)):
        if table[wanted[backend]] == FREE:
            table[wanted[backend]] = backend


@compiled_nogil
def _next_taken(table: NDArray[np.uint32]) -> None:
    """Give free slots to the owner of the next taken slot; after the last slot comes the first."""
    owner = u64(FREE)
    for at in range(2 * len(table) - 1, -1, -1):
        slot = at % len(table)
        if table[slot] == FREE:
            table[slot] = owner
        else:
            owner = u64(table[slot])
