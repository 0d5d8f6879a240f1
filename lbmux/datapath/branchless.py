"""Comparisons without branches: 1 or 0, by arithmetic that the compiler cannot turn into a jump.

For searches with many steps in the kernel, whose verifier follows both ways of every jump (Warren, "Hacker's Delight",
sections 2-12 and 2-13).
"""

from lbmux.datapath.memory import opaque, step, u64


@step
def below(a, b):
    """1 where a < b, as unsigned numbers: the borrow of a - b."""
    return opaque(((~a & b) | (~(a ^ b) & (a - b))) >> u64(63))


@step
def is_zero(a):
    return opaque(((a | (u64(0) - a)) >> u64(63)) ^ u64(1))
