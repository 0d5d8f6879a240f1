"""Builds Maglev tables, which map slots to backends (Eisenbud et al., "Maglev", NSDI 2016, section 3.4).

Each backend has a permutation of the slots, from two hashes of its name.  Backends take turns, and each takes the first
free slot of its permutation.  `build` runs in a thread, off the packet path, and releases the interpreter's lock;
mux_tables swaps in the whole table.

Weights: a backend gets its exact share of slots, rounded (largest remainders, ties by name).  Its turns are spread
evenly over the build: the k-th turn of a backend with weight w is due at the time (k + 1/2) / w, which does not depend
on other weights.  With equal weights the result is the paper's table.  Slots that move, in percent of 65537, and the
minimum that the change of shares requires (tests/tables/test_maglev.py checks both):

============================================  =====  =====
change                                        moved  least
============================================  =====  =====
one of 100 equal backends removed or added      1.6    1.0
one of 1000 equal backends removed or added     0.7    0.1
weight of one of 100 from 1 to 2                1.5    1.0
weight of one of 100 from 10 to 5               1.0    0.5
============================================  =====  =====
"""

from collections.abc import Sequence
from typing import Any

import mmh3
import numpy as np
from numpy.typing import NDArray

from lbmux.codegen.compiled import compiled_nogil

DEFAULT_SIZE = 65537
SEED = 0x6C626D75
"""Seed of the hashes of names; it is fixed, because all muxes must agree."""


def build(names: Sequence[str], weights: Sequence[int], size: int = DEFAULT_SIZE) -> NDArray[np.uint16]:
    """Build a table of ``size`` slots, each an index into ``names``. The order of names does not change the result.

    ``size`` is a prime above the number of names. A weight of 0 gets no slot. Raise ValueError if ``size`` is not
    prime or no weight is above 0.
    """
    if not is_prime(size):
        raise ValueError(f"{size} slots: not a prime number")
    order = sorted((index for index, weight in enumerate(weights) if weight > 0), key=lambda index: names[index])
    if not order:
        raise ValueError("no backend has a weight above 0")
    offsets, skips = permutations([names[index] for index in order], size)
    shares = np.array([weights[index] for index in order], np.int64)
    table: NDArray[np.uint16] = np.array(order, np.uint16)[fill(offsets, skips, shares, size)]
    return table


def permutations(names: Sequence[str], size: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return each name's offset and skip: slot j of its permutation is ``(offset + j * skip) % size``."""
    hashes = np.array([mmh3.hash64(name, SEED, signed=False) for name in names], np.uint64)
    offsets, skips = hashes[:, 0] % np.uint64(size), hashes[:, 1] % np.uint64(size - 1) + np.uint64(1)
    return offsets.astype(np.uint32), skips.astype(np.uint32)


def fill(
    offsets: NDArray[np.uint32], skips: NDArray[np.uint32], weights: NDArray[np.int64], size: int
) -> NDArray[np.uint16]:
    """Return the table of backends with these permutations. All weights are 1 or more."""
    turns, table = np.empty(size, np.uint16), np.empty(size, np.uint16)
    _turns(weights, weights.sum(), apportion(weights, size), np.zeros(size + 1, np.int32), turns)
    taken = np.zeros((size >> 5) + 1, np.uint32)  # a bit map stays in the L1 cache; the table does not
    _take(turns, offsets.astype(np.uint32), skips.astype(np.uint32), taken, table)
    return table


def apportion(weights: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return the number of slots of each backend; the sum is ``size`` (largest remainders, ties to the first)."""
    quotas, remainders = np.divmod(weights * size, weights.sum())
    most = np.argsort(-remainders, kind="stable")[: size - int(quotas.sum())]
    quotas[most] += 1
    return quotas


@compiled_nogil
def _turns(
    weights: NDArray[np.int64], total: np.int64, quotas: NDArray[np.int64], ends: NDArray[np.int32], turns: NDArray[Any]
) -> None:
    """Write the backend of each turn to ``turns``, sorted by due time, then in the order of backends.

    This is a counting sort; a unit of time has one turn on average.  ``ends`` has zeros, one more than turns.
    """
    size = len(turns)
    for backend in range(len(weights)):
        for turn in range(quotas[backend]):
            ends[min((2 * turn + 1) * total // (2 * weights[backend]), size - 1) + 1] += 1
    for unit in range(size):
        ends[unit + 1] += ends[unit]
    for backend in range(len(weights)):
        for turn in range(quotas[backend]):
            unit = min((2 * turn + 1) * total // (2 * weights[backend]), size - 1)
            turns[ends[unit]] = backend
            ends[unit] += 1


@compiled_nogil
def _take(
    turns: NDArray[Any], place: NDArray[Any], skips: NDArray[Any], taken: NDArray[Any], table: NDArray[Any]
) -> None:
    """Let each backend in its turn take the next free slot of its permutation, from its ``place`` on."""
    modulus = np.uint32(len(table))
    for backend in turns:
        at, skip = place[backend], skips[backend]
        while (taken[at >> np.uint32(5)] >> (at & np.uint32(31))) & np.uint32(1):
            at += skip
            if at >= modulus:
                at -= modulus
        taken[at >> np.uint32(5)] |= np.uint32(1) << (at & np.uint32(31))
        table[at], place[backend] = backend, at


def disruption(before: NDArray[Any], after: NDArray[Any]) -> float:
    """Return the share of slots that differ, from 0 to 1."""
    return float(np.mean(before != after))


def is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))
