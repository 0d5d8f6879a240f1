"""Places for Maglev tables in the slot region."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbmux.errors import TableError
from lbmux.tables.slot_allocation import allocate


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
        ([(0, 0), (0, 100)], 0, 0),
    ],
    ids=["empty", "behind", "before", "too small before", "between", "overlapping", "one in another", "nothing"],
)
def test_first_gap(taken: list[tuple[int, int]], size: int, place: int) -> None:
    assert allocate(100, taken, size) == place


@pytest.mark.parametrize("taken", [[(0, 100)], [(40, 20)], [(0, 51)]])
def test_no_gap(taken: list[tuple[int, int]]) -> None:
    with pytest.raises(TableError) as caught:
        allocate(100, taken, 50)
    assert (caught.value.table, caught.value.limit) == ("slots", 100)


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 10)), max_size=8), st.integers(1, 40))
@settings(deadline=None)
def test_never_over_another(taken: list[tuple[int, int]], size: int) -> None:
    used = {slot for start, length in taken for slot in range(start, start + length)}
    fits = [at for at in range(101 - size) if not used & set(range(at, at + size))]
    if fits:
        assert allocate(100, taken, size) == fits[0]
    else:
        with pytest.raises(TableError):
            allocate(100, taken, size)
