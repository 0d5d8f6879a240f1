"""Rows stay with their owners."""

import numpy as np
import pytest

from lbmux.errors import TableError
from lbmux.tables.row_identities import assign, identity


def rows(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def test_an_identity_is_the_same_in_every_process_and_never_zero() -> None:
    assert identity("192.0.2.1", "tcp", 80) == identity("192.0.2.1", "tcp", 80)
    assert identity("192.0.2.1", "tcp", 80) != identity("192.0.2.1", "udp", 80)
    assert identity("192.0.2.1", "tcp", 80) == 13299179963059636119
    assert all(identity(number) for number in range(1000))


def test_a_known_identity_keeps_its_row() -> None:
    assert assign("backends", rows(5, 7, 9, 0), [9, 5], set()) == {9: 2, 5: 0}


def test_a_new_one_gets_a_row_never_used_before_one_that_was() -> None:
    assert assign("backends", rows(5, 7, 0, 0), [7, 11], set()) == {7: 1, 11: 2}


def test_a_row_out_of_use_comes_after_unused_ones() -> None:
    assert assign("backends", rows(5, 7, 9), [11], {0, 2}) == {11: 1}


def test_a_row_that_is_wanted_is_not_given_away() -> None:
    assert assign("backends", rows(5, 7), [11, 5], set()) == {5: 0, 11: 1}


def test_a_row_in_use_is_not_given_away() -> None:
    with pytest.raises(TableError) as caught:
        assign("backends", rows(5, 7), [11], {0, 1})
    assert (caught.value.table, caught.value.wanted, caught.value.limit) == ("backends", 3, 2)


def test_more_than_there_are_rows() -> None:
    with pytest.raises(TableError) as caught:
        assign("services", rows(0, 0), [1, 2, 3], set())
    assert (caught.value.table, caught.value.wanted, caught.value.limit) == ("services", 3, 2)


def test_the_table_is_not_changed() -> None:
    before = rows(5, 0, 0)
    assign("backends", before, [11, 12], set())
    assert before.tolist() == [5, 0, 0]
