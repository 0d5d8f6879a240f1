"""Branchless code: comparisons that yield 1 or 0 by arithmetic that the compiler cannot turn into a jump, and sets of
four bits.

Kernel searches with many steps need it, because the verifier follows both sides of every jump (Warren, "Hacker's
Delight", sections 2-12 and 2-13).
"""

from collections.abc import Callable

from lbmux.datapath.memory import barrier_var, int64, step, u64


@step
def below(a, b):
    """Return 1 if a < b as unsigned numbers, else 0: the borrow of a - b."""
    return barrier_var(((~a & b) | (~(a ^ b) & (a - b))) >> u64(63))


@step
def is_negative(number):
    """Return 1 if the number is negative, else 0. It compares small numbers: ``is_negative(a - b)``."""
    return u64(number) >> u64(63)


@step
def differs(a, b):
    """Return 1 if the numbers differ, else 0."""
    different = u64(a) ^ u64(b)
    return barrier_var(barrier_var(different | (u64(0) - different)) >> u64(63))


@step
def equals(a, b):
    return barrier_var(differs(a, b) ^ u64(1))


def _lookup_table(function: Callable[[int], int]) -> int:
    """Return the results of ``function`` for every set of four bits, in four bits each."""
    return sum(function(members) << 4 * members for members in range(1, 16))


COUNTS = _lookup_table(lambda members: members.bit_count())
LOWEST = _lookup_table(lambda members: (members & -members).bit_length() - 1)
HIGHEST = _lookup_table(lambda members: members.bit_length() - 1)


@step
def members(four):
    """Return how many of four bits are set."""
    return int64((u64(COUNTS) >> (four << u64(2))) & u64(15))


@step
def lowest(four):
    """Return the index of the lowest of four bits that is set, or 0 if none is."""
    return int64((u64(LOWEST) >> (four << u64(2))) & u64(15))


@step
def highest(four):
    """Return the index of the highest of four bits that is set, or 0 if none is."""
    return int64((u64(HIGHEST) >> (four << u64(2))) & u64(15))
