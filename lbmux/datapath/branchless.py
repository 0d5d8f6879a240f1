"""Without branches: comparisons, 1 or 0, by arithmetic that the compiler cannot turn into a jump; and sets of four.

For searches with many steps in the kernel, whose verifier follows both ways of every jump (Warren, "Hacker's Delight",
sections 2-12 and 2-13).
"""

from collections.abc import Callable

from lbmux.datapath.memory import barrier_var, int64, step, u64


@step
def below(a, b):
    """1 where a < b, as unsigned numbers: the borrow of a - b."""
    return barrier_var(((~a & b) | (~(a ^ b) & (a - b))) >> u64(63))


@step
def is_negative(number):
    """1 where it is; a comparison of numbers that are small."""
    return u64(number) >> u64(63)


@step
def differs(a, b):
    """1 where they differ."""
    different = u64(a) ^ u64(b)
    return barrier_var(barrier_var(different | (u64(0) - different)) >> u64(63))


@step
def equals(a, b):
    return barrier_var(differs(a, b) ^ u64(1))


def _of_every_set(say: Callable[[int], int]) -> int:
    """What ``say`` says of every set of four, in four bits each."""
    return sum(say(members) << 4 * members for members in range(1, 16))


COUNTS = _of_every_set(lambda members: members.bit_count())
LOWEST = _of_every_set(lambda members: (members & -members).bit_length() - 1)
HIGHEST = _of_every_set(lambda members: members.bit_length() - 1)


@step
def members(four):
    """How many of four bits are set."""
    return int64((u64(COUNTS) >> (four << u64(2))) & u64(15))


@step
def lowest(four):
    """The lowest of four bits that is set; 0 where none is."""
    return int64((u64(LOWEST) >> (four << u64(2))) & u64(15))


@step
def highest(four):
    """The highest of four bits that is set; 0 where none is."""
    return int64((u64(HIGHEST) >> (four << u64(2))) & u64(15))
