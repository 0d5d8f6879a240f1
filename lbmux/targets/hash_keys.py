"""Draws the secret keys of the tables' hash (datapath.hashing.keyed) so that consecutive values do not share buckets.

A client's ports are often consecutive, and so are the addresses of clients behind one router. A multilinear hash puts
such values a constant step apart. With about one random key in a hundred, a small multiple of the step is nearly a
whole number of turns around the flow table: hundreds of flows then fall into a few buckets and evict each other.
Keys like that are drawn again, which costs packets nothing; mixing the hash would cost each packet instructions.
"""

import secrets
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lbmux.datapath.tables import WAYS

NAMES = tuple(f"key{index}" for index in range(7))
"""The keys' fields in the settings."""
VALUES = 1 << 16
"""How many values a port, or the lower half of an IPv4 address, has."""
SHIFTS = (0, 16)
"""The first bit of such a number in a word that is hashed."""


def draw(buckets: int) -> int:
    """Return a random odd key that spreads consecutive values over ``buckets``, a power of two.

    At most WAYS of ``buckets`` // 4 consecutive values are in one bucket. A third of all keys is refused, so an
    attacker who guesses has at most 1.6 times the chance that he has with any key.
    """
    while not spreads(key := secrets.randbits(64) | 1, buckets):
        pass
    return key


def spreads(key: int, buckets: int) -> bool:
    """Return whether a key keeps consecutive values apart.

    It does if any two of them are more than 1 / WAYS of a bucket apart: more than WAYS then do not fit one bucket.
    """
    width = buckets.bit_length() - 1
    nearest = 1 << (64 - width)
    differences = _differences(min(buckets // 4, VALUES))
    for shift in SHIFTS:
        apart = (np.uint64(key) << np.uint64(32 - width + shift)) * differences  # in 2**-64 turns around the table
        if (np.abs(apart.view(np.int64)) < nearest // WAYS).any():
            return False
    return True


@cache
def _differences(count: int) -> NDArray[np.uint64]:
    """Return the differences between words whose numbers, two bytes in network order, are at most ``count`` apart."""
    high, low = np.divmod(np.arange(1, min(count + 1, VALUES)), 256)
    carried = ((low - 256) * 256 + high + 1)[high < 255]
    return np.concatenate([low * 256 + high, carried]).astype(np.uint64)
