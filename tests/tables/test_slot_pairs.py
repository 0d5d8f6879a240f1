"""What changes of a Maglev table make of its slots: the states, their bases, and how they become steady again."""

import random

import numpy as np
import pytest

from lbmux.datapath.tables import FORMER_TABLE, NO_BASE, SLOT
from lbmux.tables import slot_pairs
from lbmux.tables.slot_pairs import Pairs

A, B, C = 0, 1, 2
NONE_REMOVED = np.zeros(8, np.bool_)


def pairs(*values: tuple[int, int]) -> Pairs:
    return np.array([*values], SLOT)


def after(before: tuple[int, int], backend: int, *removed: int) -> tuple[int, int]:
    gone = NONE_REMOVED.copy()
    gone[list(removed)] = True
    (pair,) = slot_pairs.changed(pairs(before), np.array([backend], np.uint16), gone).tolist()
    return tuple(pair)


@pytest.mark.parametrize(
    ("before", "backend", "expected"),
    [
        ((A, A), A, (A, A)),
        ((A, A), B, (B, A)),
        ((B, A), C, (C, A)),
        ((B, A), B, (B, A)),
        ((B, A), A, (A, NO_BASE)),
        ((A, NO_BASE), A, (A, NO_BASE)),
        ((A, NO_BASE), B, (B, A)),
        ((A, FORMER_TABLE), B, (B, FORMER_TABLE)),
    ],
    ids=["none", "steady", "changing", "changing, same", "base back", "exceptions, same", "exceptions", "resized"],
)
def test_a_change_of_one_slot(before: tuple[int, int], backend: int, expected: tuple[int, int]) -> None:
    assert after(before, backend) == expected


@pytest.mark.parametrize(
    ("before", "backend", "expected"),
    [((A, A), B, (B, B)), ((B, A), C, (C, NO_BASE)), ((B, A), B, (B, NO_BASE)), ((A, NO_BASE), B, (B, NO_BASE))],
    ids=["steady", "changing", "changing, same", "exceptions"],
)
def test_a_removed_backend_is_not_a_base(before: tuple[int, int], backend: int, expected: tuple[int, int]) -> None:
    assert after(before, backend, A) == expected


def test_another_size_refers_to_the_former_table() -> None:
    assert slot_pairs.resized(np.array([A, B], np.uint16)).tolist() == [(A, FORMER_TABLE), (B, FORMER_TABLE)]


def test_only_slots_that_begin_to_change_have_begun() -> None:
    before, now = pairs((A, A), (B, A), (A, NO_BASE), (A, A)), pairs((B, A), (C, A), (B, A), (A, A))
    assert slot_pairs.began(before, now).tolist() == [0, 2]
    assert slot_pairs.changing(now).tolist() == [0, 1, 2]


def test_a_row_that_another_backend_gets_is_not_a_base() -> None:
    held = pairs((A, B), (B, B), (B, A))
    slot_pairs.forget_row(held, B)
    assert held.tolist() == [(A, NO_BASE), (B, B), (B, A)]


def test_slots_settle_and_end_their_exceptions() -> None:
    held = pairs((A, B), (B, A), (C, C), (A, NO_BASE))
    slot_pairs.settle(held, np.array([0, 2], np.uint32))
    assert held.tolist() == [(A, NO_BASE), (B, A), (C, C), (A, NO_BASE)]
    over = slot_pairs.end_exceptions(held, np.array([True, False, False, False]))
    assert over.tolist() == [False, False, False, True]
    assert held.tolist() == [(A, NO_BASE), (B, A), (C, C), (A, A)]
    assert slot_pairs.is_marked(held).tolist() == [True, True, False, False]


def test_bases_of_the_former_table_are_bases() -> None:
    assert slot_pairs.bases(pairs((A, B), (C, C), (A, NO_BASE)), pairs()) == {B}
    assert slot_pairs.bases(pairs((A, FORMER_TABLE)), pairs((B, B), (C, A), (C, NO_BASE))) == {A, B, C}


def test_random_changes_keep_what_the_rule_rests_on() -> None:
    """A slot that has changed since it was last steady has the backend of that time as its base, or exceptions."""
    pick = random.Random(3)
    held, steady_at = slot_pairs.steady(np.zeros(50, np.uint16)), [A] * 50
    for _ in range(300):
        table = held["backend"].copy()
        for slot in pick.sample(range(50), 10):
            table[slot] = pick.randrange(4)
        held = slot_pairs.changed(held, table, NONE_REMOVED)
        for slot, (backend, base) in enumerate(held.tolist()):
            if base == NO_BASE:
                steady_at[slot] = backend
            assert base in (NO_BASE, steady_at[slot])
        slot_pairs.end_exceptions(held, np.array([pick.random() < 0.5 for _ in range(50)]))
