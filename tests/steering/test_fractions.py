"""Shares of data centres: by capacity, and how they move."""

from collections.abc import Mapping

import pytest

from lbmux.config.steering_models import DataCentre
from lbmux.steering.fractions import next_fractions, wanted_fractions


def centre(name: str, capacity: float = 1, **more: bool) -> DataCentre:
    return DataCentre(name=name, capacity=capacity, **more)


def moved(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    return sum(max(0.0, share - before[name]) for name, share in after.items())


@pytest.mark.parametrize(
    ("centres", "wanted"),
    [
        ((centre("a", 3), centre("b", 1)), {"a": 0.75, "b": 0.25}),
        ((centre("a", 3), centre("b"), centre("c", draining=True)), {"a": 0.75, "b": 0.25, "c": 0.0}),
        ((centre("a", healthy=False), centre("b")), {"a": 0.0, "b": 1.0}),
        ((centre("a", draining=True), centre("b", healthy=False)), {"a": 1.0, "b": 0.0}),
        ((centre("a", healthy=False), centre("b", healthy=False)), {"a": 0.5, "b": 0.5}),
        ((), {}),
    ],
)
def test_shares_follow_capacity_and_health(centres: tuple[DataCentre, ...], wanted: dict[str, float]) -> None:
    assert wanted_fractions(centres) == wanted


def test_a_data_centre_drains_by_a_tenth_of_all_requests_a_step() -> None:
    now: Mapping[str, float] = {"a": 0.5, "b": 0.3, "c": 0.2}
    wanted, steps = {"a": 0.0, "b": 0.6, "c": 0.4}, []
    while now["a"]:
        after = next_fractions(now, wanted, ())
        steps.append(moved(now, after))
        now = after
    assert steps == pytest.approx([0.1] * 5) and now == pytest.approx(wanted)


def test_a_dead_data_centre_loses_its_requests_at_once() -> None:
    assert next_fractions({"a": 0.5, "b": 0.5}, {"a": 0.0, "b": 1.0}, {"a"}) == {"a": 0.0, "b": 1.0}


def test_one_that_dies_while_another_drains_does_not_speed_up_the_drain() -> None:
    after = next_fractions({"a": 0.4, "b": 0.4, "c": 0.2}, {"a": 0.0, "b": 0.0, "c": 1.0}, {"b"})
    assert after == pytest.approx({"a": 0.3, "b": 0.0, "c": 0.7})


def test_one_that_the_file_no_longer_names_loses_its_requests() -> None:
    assert next_fractions({"a": 0.5, "b": 0.5}, {"b": 1.0}, ()) == {"b": 1.0}
