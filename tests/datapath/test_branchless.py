"""What is computed without branches, against what it stands for."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lbmux.codegen.compiled import compiled
from lbmux.datapath import branchless
from lbmux.datapath.memory import u64

longs, small = st.integers(0, 2**64 - 1), st.integers(-(2**40), 2**40)


@compiled
def compiled_below(a, b):
    return branchless.below(u64(a), u64(b))


@compiled
def compiled_other(a, b):
    return branchless.differs(u64(a), u64(b))


@compiled
def compiled_same(a, b):
    return branchless.equals(u64(a), u64(b))


@compiled
def compiled_negative(number):
    return branchless.is_negative(number)


@compiled
def compiled_of_four(four):
    return branchless.members(u64(four)), branchless.lowest(u64(four)), branchless.highest(u64(four))


@settings(deadline=None)
@given(longs, longs)
@example(0, 0)
@example(2**64 - 1, 2**63)
def test_comparisons(a: int, b: int) -> None:
    for first, second in ((a, b), (b, a), (a, a)):
        one, other = np.uint64(first), np.uint64(second)
        assert compiled_below(one, other) == (first < second)
        assert compiled_other(one, other) == (first != second)
        assert compiled_same(one, other) == (first == second)


@settings(deadline=None)
@given(small)
@example(0)
@example(-1)
def test_negative(number: int) -> None:
    assert compiled_negative(number) == (number < 0)


def test_every_set_of_four() -> None:
    for four in range(16):
        inside = [bit for bit in range(4) if four >> bit & 1]
        expected = len(inside), min(inside, default=0), max(inside, default=0)
        assert compiled_of_four(four) == expected
