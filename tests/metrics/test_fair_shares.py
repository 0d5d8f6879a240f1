"""Fair shares of a capacity, and what a VIP is admitted of its packets."""

import pytest

from lbmux.metrics.fair_shares import LEAST, Admitted, admitted, fair_shares

ONE = {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize(
    ("demands", "weights", "capacity", "shares"),
    [
        ({"a": 10, "b": 20, "c": 30}, ONE, 100, {"a": 10, "b": 20, "c": 30}),
        ({"a": 10, "b": 20, "c": 900}, ONE, 100, {"a": 10, "b": 20, "c": 70}),
        ({"a": 10, "b": 500, "c": 900}, ONE, 100, {"a": 10, "b": 45, "c": 45}),
        ({"a": 10, "b": 500, "c": 900}, {"a": 1, "b": 2, "c": 1}, 100, {"a": 10, "b": 60, "c": 30}),
        ({"a": 40, "b": 45, "c": 900}, {"a": 1, "b": 1, "c": 2}, 100, {"a": 25, "b": 25, "c": 50}),
        ({"a": 40}, ONE, -5, {"a": 0}),
        ({}, ONE, 100, {}),
    ],
)
def test_what_some_do_not_need_goes_to_the_others_by_weight(
    demands: dict[str, float], weights: dict[str, float], capacity: float, shares: dict[str, float]
) -> None:
    assert fair_shares(demands, weights, capacity) == pytest.approx(shares)


@pytest.mark.parametrize(
    ("new", "others", "share", "expected"),
    [
        (10, 20, 30, Admitted(1.0, 1.0)),
        (80, 20, 60, Admitted(0.5, 1.0)),
        (64, 100, 51, Admitted(LEAST, 0.5)),
        (0, 100, 25, Admitted(LEAST, 0.25)),
        (1000, 0, 10, Admitted(LEAST, 1.0)),
        (0, 100, 0, Admitted(LEAST, LEAST)),
    ],
)
def test_new_flows_go_first_and_something_is_always_admitted(
    new: float, others: float, share: float, expected: Admitted
) -> None:
    assert admitted(new, others, share) == pytest.approx(expected)
