"""Maglev tables: the paper's example, a plain twin, exact shares, and few slots moved by a change."""

from fractions import Fraction
from itertools import count

import mmh3
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbmux.tables.maglev import SEED, build, disruption, fill, is_prime

PRIMES = [7, 13, 101, 251, 1009]
WEIGHTS = st.lists(st.integers(0, 65535) | st.integers(0, 3), min_size=1, max_size=30).filter(any)


def names(number: int) -> list[str]:
    return [f"10.1.{index // 250}.{index % 250}:80" for index in range(number)]


def plain_quotas(weights: list[int], size: int) -> list[int]:
    exact = [Fraction(weight * size, sum(weights)) for weight in weights]
    quotas = [int(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda at: (quotas[at] - exact[at], at))
    for at in by_remainder[: size - sum(quotas)]:
        quotas[at] += 1
    return quotas


def plain_fill(offsets: list[int], skips: list[int], weights: list[int], size: int) -> list[int]:
    total, due = sum(weights), []
    for at, quota in enumerate(plain_quotas(weights, size)):
        due += [(min(Fraction(2 * turn + 1, 2 * weights[at]) * total // 1, size - 1), at) for turn in range(quota)]
    table: list[int | None] = [None] * size
    for _, at in sorted(due):
        permutation = ((offsets[at] + j * skips[at]) % size for j in count())
        table[next(slot for slot in permutation if table[slot] is None)] = at
    return table  # type: ignore[return-value]


def plain_build(backends: dict[str, int], size: int) -> list[str]:
    live = sorted(name for name, weight in backends.items() if weight)
    hashes = [mmh3.hash64(name, SEED, signed=False) for name in live]
    table = plain_fill(
        [first % size for first, _ in hashes],
        [second % (size - 1) + 1 for _, second in hashes],
        [backends[name] for name in live],
        size,
    )
    return [live[at] for at in table]


def filled(pairs: list[tuple[int, int]], size: int) -> list[int]:
    offsets, skips = np.array(pairs, np.uint32).T
    return fill(offsets, skips, np.ones(len(pairs), np.int64), size).tolist()


def shares(weights: list[int], size: int = 65537) -> tuple[np.ndarray, np.ndarray]:
    """(slots each has, slots each should have)"""
    got = np.bincount(build(names(len(weights)), weights, size), minlength=len(weights))
    return got, np.array(weights) / sum(weights) * size


def moved(before: dict[str, int], after: dict[str, int]) -> float:
    tables = [np.array(list(each))[build(list(each), list(each.values()))] for each in (before, after)]
    return disruption(*tables)


class TestThePapersExample:
    def test_paper_example_with_three_backends(self) -> None:
        assert filled([(3, 4), (0, 2), (3, 1)], 7) == [1, 0, 1, 0, 2, 2, 0]

    def test_paper_example_without_the_second_backend(self) -> None:
        assert filled([(3, 4), (3, 1)], 7) == [0, 0, 0, 0, 1, 1, 1]


class TestTwin:
    @pytest.mark.slow
    @settings(max_examples=150, deadline=None)
    @given(WEIGHTS, st.sampled_from(PRIMES))
    def test_same_table(self, weights: list[int], size: int) -> None:
        backends = dict(zip(names(len(weights)), weights, strict=True))
        built = [list(backends)[at] for at in build(list(backends), weights, size)]
        assert built == plain_build(backends, size)

    @settings(max_examples=50, deadline=None)
    @given(WEIGHTS, st.randoms(use_true_random=False))
    def test_order_of_backends_does_not_matter(self, weights: list[int], random: object) -> None:
        backends = list(zip(names(len(weights)), weights, strict=True))
        shuffled = random.sample(backends, len(backends))  # type: ignore[attr-defined]
        tables = [[each[at][0] for at in build(*zip(*each, strict=True), 251)] for each in (backends, shuffled)]
        assert tables[0] == tables[1]


class TestShares:
    @pytest.mark.parametrize(
        "weights",
        [[1, 1, 1], [1, 2, 3], [1, 2, 3, 4, 5, 6, 7], [5, 0, 1], list(range(1, 101)), [100, 1], [1] * 600],
        ids=["equal", "one to three", "one to seven", "with a zero", "one to a hundred", "uneven", "six hundred"],
    )
    def test_within_one_percent_of_the_weights(self, weights: list[int]) -> None:
        got, wanted = shares(weights)
        enough = wanted >= 100  # below that one slot is more than one percent
        assert (np.abs(got - wanted)[enough] <= 0.01 * wanted[enough]).all()
        assert (np.abs(got - wanted) < 1).all()

    def test_thousand_equal_backends_differ_by_one_slot(self) -> None:
        got, _ = shares([1] * 1000)
        assert set(got) == {65, 66}

    def test_one_heavy_among_a_thousand_light(self) -> None:
        got, wanted = shares([1000] + [1] * 1000)
        assert got[0] == pytest.approx(wanted[0], abs=1)

    def test_weight_zero_has_no_slot(self) -> None:
        got, _ = shares([3, 0, 1])
        assert got[1] == 0

    def test_only_one_backend_has_all(self) -> None:
        assert set(build(["a", "b"], [0, 9], 101)) == {1}


class TestDisruption:
    hundred = dict.fromkeys(names(100), 1)
    thousand = dict.fromkeys(names(1000), 1)

    def test_one_of_a_hundred_removed(self) -> None:
        assert moved(self.hundred, dict(list(self.hundred.items())[1:])) < 0.018

    def test_one_of_a_thousand_removed(self) -> None:
        assert moved(self.thousand, dict(list(self.thousand.items())[1:])) < 0.008

    def test_one_added_to_a_thousand(self) -> None:
        assert moved(self.thousand, self.thousand | {"new": 1}) < 0.008

    def test_weight_doubled(self) -> None:
        assert moved(self.hundred, self.hundred | {"10.1.0.7:80": 2}) < 0.018

    def test_weight_halved(self) -> None:
        ten = dict.fromkeys(self.hundred, 10)
        assert moved(ten, ten | {"10.1.0.7:80": 5}) < 0.012

    def test_all_weights_doubled_moves_nothing(self) -> None:
        assert moved(self.hundred, dict.fromkeys(self.hundred, 2)) == 0

    def test_a_change_of_the_largest_weight_keeps_the_others_slots(self) -> None:
        weights = {name: 1 + at % 5 for at, name in enumerate(self.hundred)} | {"10.1.0.7:80": 90}
        assert moved(weights, weights | {"10.1.0.7:80": 91}) < 0.012


class TestRefused:
    def test_no_weight_above_zero(self) -> None:
        with pytest.raises(ValueError, match="weight"):
            build(["a"], [0])

    def test_a_size_that_is_not_prime(self) -> None:
        with pytest.raises(ValueError, match="prime"):
            build(["a"], [1], 65536)


def test_primes() -> None:
    assert [number for number in range(-1, 30) if is_prime(number)] == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]
    assert is_prime(65537) and is_prime(655373) and not is_prime(65537 * 3)
