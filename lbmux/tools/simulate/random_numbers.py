"""Random numbers for compiled simulations: SplitMix64 (Steele et al., OOPSLA 2014), with its state in an array.

A state is a uint64 array of one element; each call changes it.
"""

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lbmux.datapath.memory import int64, step, u64

GOLDEN = 0x9E3779B97F4A7C15


def state_of(rng: Generator) -> NDArray[np.uint64]:
    return rng.integers(0, 1 << 64, 1, np.uint64)


@step
def mix(value):  # type: ignore[no-untyped-def]
    """Return 64 bits, each of which depends on every bit of the value."""
    mixed = (u64(value) ^ (u64(value) >> u64(30))) * u64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> u64(27))) * u64(0x94D049BB133111EB)
    return mixed ^ (mixed >> u64(31))


@step
def uniform(state):  # type: ignore[no-untyped-def]
    """Return a number from 0 to 1, without 1."""
    state[0] += u64(GOLDEN)
    return (mix(state[0]) >> u64(11)) * (1.0 / (1 << 53))


@step
def below(state, limit):  # type: ignore[no-untyped-def]
    """Return an integer from 0 to ``limit`` - 1."""
    return int64(uniform(state) * limit)


@step
def exponential(state, mean):  # type: ignore[no-untyped-def]
    return -mean * math.log(1.0 - uniform(state))
