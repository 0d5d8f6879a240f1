"""Karger's and rendezvous hashing: small cases by hand, plain twins, and what removing a backend moves."""

import numpy as np
import pytest

from lbmux.tools.simulate.hash_tables import highest, karger_by_views, karger_ring, rendezvous

MASK = (1 << 64) - 1


class Fixed:
    """A generator whose numbers are given."""

    def __init__(self, *arrays: list[int]) -> None:
        self.arrays = [*arrays]

    def integers(self, low: int, high: int, size: int, dtype: type) -> np.ndarray:
        return np.array(self.arrays.pop(0), dtype)


def plain_score(seed: int, slot: int) -> int:
    mixed = seed ^ (slot * 0x9E3779B97F4A7C15 & MASK)
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & MASK
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & MASK
    return mixed ^ mixed >> 31


def test_karger_takes_free_slots_view_by_view_then_gives_the_rest_to_the_next() -> None:
    rng = Fixed([1, 1, 4], [2, 4, 6])  # backend 1 finds slot 1 taken, then slot 4
    assert karger_by_views(rng, 3, 8, 2).tolist() == [0, 0, 0, 2, 2, 2, 2, 0]  # type: ignore[arg-type]


def test_a_slot_of_the_ring_belongs_to_the_next_point() -> None:
    quarter = 1 << 60
    rng = Fixed([quarter // 2, 3 * quarter + 1])
    assert karger_ring(rng, 2, 4, 1).tolist() == [0, 1, 1, 1]  # type: ignore[arg-type]


def test_the_ring_is_closed() -> None:
    quarter = 1 << 60
    rng = Fixed([quarter // 2, quarter + 1])
    assert karger_ring(rng, 2, 4, 1).tolist() == [0, 1, 0, 0]  # type: ignore[arg-type]


def test_rendezvous_takes_the_highest_score() -> None:
    seeds = np.random.default_rng(3).integers(0, 1 << 64, 5, np.uint64)
    table = np.empty(101, np.uint32)
    highest(seeds, np.arange(101), table)
    scores = [[plain_score(int(seed), slot) for seed in seeds] for slot in range(101)]
    assert table.tolist() == [one.index(max(one)) for one in scores]


def test_rendezvous_moves_only_the_slots_of_a_backend_that_is_removed() -> None:
    seeds = np.random.default_rng(4).integers(0, 1 << 64, 6, np.uint64)
    before, after = np.empty(503, np.uint32), np.empty(503, np.uint32)
    highest(seeds, np.arange(503), before)
    highest(seeds[:5], np.arange(503), after)
    kept = before != 5
    assert (before[kept] == after[kept]).all() and 0 < np.count_nonzero(~kept) < 200


@pytest.mark.parametrize("build", [lambda rng: karger_by_views(rng, 9, 211, 30), lambda rng: rendezvous(rng, 9, 211)])
def test_one_seed_gives_one_table(build) -> None:  # type: ignore[no-untyped-def]
    one, same, other = (build(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (one == same).all() and (one != other).any() and set(one) == set(range(9))
