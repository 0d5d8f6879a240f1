"""Each atomic operation returns the word that was there and leaves the right one."""

import numpy as np
import pytest

from lbmux.codegen.compiled import compiled
from lbmux.datapath.atomics import (
    atomic_add,
    compare_exchange,
    fetch_and,
    fetch_or,
    fetch_xor,
    load_first,
    load_last,
)
from lbmux.datapath.context import context_at
from lbmux.datapath.memory import at_address


@compiled
def _changed(address, value, results):  # type: ignore[no-untyped-def]
    """Write what each operation returns to ``found``; its word is in the next place of the array at ``address``."""
    results[0] = fetch_or(at_address(address), value)
    results[1] = fetch_and(at_address(address + 8), value)
    results[2] = fetch_xor(at_address(address + 16), value)
    results[3] = atomic_add(at_address(address + 24), value)


@compiled
def _exchanged(address, before, after):  # type: ignore[no-untyped-def]
    return compare_exchange(at_address(address), before, after)


@compiled
def _loaded(context_address, address):  # type: ignore[no-untyped-def]
    context = context_at(context_address)
    return load_first(context, at_address(address)), load_last(context, at_address(address))


def test_operations_that_change_a_word() -> None:
    words, returned_words = np.full(4, 0b1100, np.uint64), np.zeros(4, np.uint64)
    _changed(np.uint64(words.ctypes.data), np.uint64(0b1010), returned_words)
    assert words.tolist() == [0b1110, 0b1000, 0b0110, 0b1100 + 0b1010]
    assert returned_words.tolist() == [0b1100] * 4


@pytest.mark.parametrize(("before", "kept"), [(7, 9), (8, 7)], ids=["as expected", "changed meanwhile"])
def test_a_word_is_exchanged_only_if_it_is_as_expected(before: int, kept: int) -> None:
    words = np.array([7], np.uint64)
    assert _exchanged(np.uint64(words.ctypes.data), np.uint64(before), np.uint64(9)) == 7
    assert words.tolist() == [kept]


def test_a_word_is_loaded() -> None:
    words = np.array([1 << 63 | 5], np.uint64)
    assert _loaded(np.uint64(0), np.uint64(words.ctypes.data)) == (1 << 63 | 5, 1 << 63 | 5)
