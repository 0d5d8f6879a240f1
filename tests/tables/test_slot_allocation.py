"""Places for Maglev tables in the slot region."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbmux.errors import TableError
from lbmux.tables.slot_allocation import Gaps, Range, runs


@pytest.mark.parametrize(
    ("taken", "size", "place"),
    [
        ([], 100, 0),
        ([(0, 10)], 90, 10),
        ([(10, 10)], 10, 0),
        ([(10, 10)], 11, 20),
        ([(50, 10), (0, 10)], 40, 10),
        ([(0, 10), (5, 30)], 65, 35),
        ([(0, 30), (5, 10)], 70, 30),
        ([(0, 0), (0, 90)], 10, 90),
    ],
    ids=["empty", "behind", "before", "too small before", "between", "overlapping", "one in another", "an empty one"],
)
def test_first_gap(taken: list[tuple[int, int]], size: int, place: int) -> None:
    assert Gaps(100, taken).take(size) == place


@pytest.mark.parametrize("taken", [[(0, 100)], [(40, 20)], [(0, 51)]])
def test_no_gap(taken: list[tuple[int, int]]) -> None:
    with pytest.raises(TableError) as caught:
        Gaps(100, taken).take(50)
    assert (caught.value.table, caught.value.limit) == ("slots", 100)


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 10)), max_size=8), st.integers(1, 40))
@settings(deadline=None)
def test_ranges_never_overlap(taken: list[tuple[int, int]], size: int) -> None:
    used = {slot for start, length in taken for slot in range(start, start + length)}
    fits = [at for at in range(101 - size) if not used & set(range(at, at + size))]
    if fits:
        assert Gaps(100, taken).take(size) == fits[0]
    else:
        with pytest.raises(TableError):
            Gaps(100, taken).take(size)


def test_ranges_that_are_taken_in_turn_do_not_overlap() -> None:
    gaps = Gaps(100, [(20, 10), (50, 20)])
    assert [gaps.take(size) for size in (15, 15, 5, 5, 30)] == [0, 30, 15, 45, 70]
    with pytest.raises(TableError) as caught:
        gaps.take(1)
    assert (caught.value.wanted, caught.value.limit) == (101, 100)


@pytest.mark.parametrize(
    ("places", "joined"),
    [
        ([], []),
        ([(10, 5), (0, 10), (20, 5)], [(0, 15), (20, 5)]),
        ([(0, 10), (10, 0), (10, 10), (20, 10)], [(0, 20), (20, 10)]),
        ([(0, 30), (30, 1)], [(0, 30), (30, 1)]),
    ],
    ids=["none", "a gap", "up to the longest", "one that is longer"],
)
def test_places_beside_each_other_are_one_run(places: list[Range], joined: list[Range]) -> None:
    assert runs(places, longest=20) == joined
