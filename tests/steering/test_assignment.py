"""The solver: capacities hold, and the cost is near the bound of the linear programme, which HiGHS finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.steering import Region, lp_bound, random_region
from lbmux.steering.assignment import Assignment, assign


def solved(region: Region) -> Assignment:
    return assign(region.cost, region.users, region.capacity)


def loads(region: Region, assignment: Assignment) -> np.ndarray:
    return np.bincount(assignment.pops, region.users, len(region.capacity))


@pytest.mark.parametrize("capacity_ratio", [1.25, 1.05])
def test_within_2_percent_of_the_linear_program(capacity_ratio: float) -> None:
    region = random_region(1000, 20, 1, capacity_ratio)
    assignment, bound = solved(region), lp_bound(region)
    assert (loads(region, assignment) <= region.capacity * (1 + 1e-6)).all()
    assert bound <= assignment.cost < 1.02 * bound
    assert 0.98 * bound < assignment.bound <= bound * (1 + 1e-6)


def test_with_spare_capacity_each_group_has_its_best_pop() -> None:
    region = random_region(200, 10, 3, 100.0)
    assignment = solved(region)
    assert (assignment.pops == region.cost.argmin(axis=0)).all()
    assert assignment.gap == pytest.approx(0, abs=1e-9) and not assignment.prices.any()


def test_too_little_capacity_overloads_all_alike() -> None:
    region = random_region(1000, 20, 4, 0.8)
    share = loads(region, solved(region)) / region.capacity
    assert share.min() > 1.1 and share.max() < 1.26


def test_one_pop_takes_all() -> None:
    region = random_region(50, 1, 5, 0.5)
    assert not solved(region).pops.any()


def test_two_equal_inputs_have_one_result() -> None:
    region = random_region(500, 10, 6, 1.1)
    assert (solved(region).pops == solved(region).pops).all()


@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 1000), st.sampled_from([0.7, 1.0, 1.2, 3.0]))
@settings(max_examples=60, deadline=None)
def test_the_bound_is_below_the_cost_and_swaps_end(groups: int, pops: int, seed: int, capacity_ratio: float) -> None:
    region = random_region(groups, pops, seed, capacity_ratio)
    assignment = solved(region)
    assert assignment.pops.shape == (groups,) and assignment.pops.min() >= 0 and assignment.pops.max() < pops
    assert (assignment.prices >= 0).all()
