"""Maglev tables: which backend each slot has (Eisenbud et al., "Maglev", NSDI 2016, section 3.4).

Every backend has a permutation of the slots, from two hashes of its name; in turn each takes the first free slot
of its own.  With weights a backend gets turns in proportion, by a credit that grows by its weight each round: its
share is then right to one slot, and a change of one weight moves few slots of the others.
"""

from collections.abc import Sequence
from typing import Any

import mmh3
import numpy as np
from numba import njit
from numpy.typing import NDArray

DEFAULT_SIZE = 65537
SEED = 0x6C626D75
"""Of the hashes of names.  Not settable: all muxes must agree."""
compiled = njit(cache=True, nogil=True, error_model="numpy")


def build(names: Sequence[str], weights: Sequence[int], size: int = DEFAULT_SIZE) -> NDArray[np.uint16]:
    """``size`` slots, each an index into ``names``; the same table for the same names in any order.

    ``size`` is a prime over the number of names; a weight of 0 gets no slot.  ValueError if no weight is above 0.
    """
    order = sorted((index for index, weight in enumerate(weights) if weight > 0), key=lambda index: names[index])
    if not order:
        raise ValueError("no backend has a weight above 0")
    hashes = [mmh3.hash64(names[index], SEED, signed=False) for index in order]
    offsets = np.array([first % size for first, _ in hashes], np.uint32)
    skips = np.array([second % (size - 1) + 1 for _, second in hashes], np.uint32)
    shares = np.array([weights[index] for index in order], np.int64)
    table: NDArray[np.uint16] = np.array(order, np.uint16)[fill(offsets, skips, shares, size)]
    return table


@compiled
def fill(offsets: NDArray[Any], skips: NDArray[Any], weights: NDArray[Any], size: int) -> NDArray[np.uint16]:
    """The table of the backends with these permutations (``(offset + j * skip) % size``); nobody is 65535."""
    table = np.full(size, 0xFFFF, np.uint16)
    place, credit, filled = offsets.astype(np.uint32), np.zeros(len(offsets), np.int64), 0
    heaviest, modulus = weights.max(), np.uint32(size)
    while True:
        for backend in range(len(place)):
            credit[backend] += weights[backend]
            if credit[backend] < heaviest:
                continue
            credit[backend] -= heaviest
            at, skip = place[backend], skips[backend]
            while table[at] != 0xFFFF:
                at += skip
                if at >= modulus:
                    at -= modulus
            table[at], place[backend] = backend, at
            filled += 1
            if filled == size:
                return table


def disruption(before: NDArray[Any], after: NDArray[Any]) -> float:
    """The share of slots, 0 to 1, that are not the same."""
    return float(np.mean(before != after))
