"""Shares of data centres: by capacity, and how they move."""

from collections.abc import Mapping
from typing import Any

import pytest

from lbmux.config.steering_models import DataCentre
from lbmux.steering.fractions import next_fractions, wanted_fractions
from tests.steering.pool import steering


def centre(name: str, capacity: float = 1, **more: bool) -> DataCentre:
    return DataCentre(name=name, capacity=capacity, **more)


def moved(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    return sum(max(0.0, share - before[name]) for name, share in after.items())


def fractions(
    *centres: DataCentre, loads: Mapping[str, float] | None = None, **pops: dict[str, Any]
) -> dict[str, dict[str, float]]:
    """The shares of the PoPs fra, ams and lon; ``pops``: what is special about them."""
    return wanted_fractions(steering(data_centres=[one.model_dump() for one in centres], pops=pops), loads or {})


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
@pytest.mark.parametrize("loads", [{}, {"fra": 0.1}, {"fra": 90.0, "ams": 10.0}], ids=["none", "small", "overload"])
def test_shares_follow_capacity_and_health(
    centres: tuple[DataCentre, ...], wanted: dict[str, float], loads: Mapping[str, float]
) -> None:
    for shares in fractions(*centres, loads=loads).values():
        assert shares == pytest.approx(wanted)


def test_each_pop_prefers_the_data_centres_that_are_near_to_it() -> None:
    found = fractions(
        centre("a", 100), centre("b", 100), loads={"fra": 50, "ams": 30},
        fra={"rtt_ms": {"a": 10, "b": 90}}, ams={"rtt_ms": {"a": 80, "b": 10}}, lon={"rtt_ms": {"a": 30, "b": 35}},
    )  # fmt: skip
    assert (found["fra"], found["ams"]) == ({"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 1.0})
    assert found["lon"] == {"a": 0.5, "b": 0.5}  # both are near


def test_what_does_not_fit_goes_to_the_next_data_centre_and_an_overload_to_all() -> None:
    near_a = {"rtt_ms": {"a": 10, "b": 90}}
    found = fractions(centre("a", 60), centre("b", 100), loads={"fra": 60, "ams": 60}, fra=near_a, ams=near_a)
    assert found["fra"] == found["ams"] == pytest.approx({"a": 0.5, "b": 0.5})
    found = fractions(centre("a", 30), centre("b", 10), loads={"fra": 80}, fra=near_a)
    assert found["fra"] == pytest.approx({"a": 0.75, "b": 0.25})


def test_a_data_centre_that_one_pop_cannot_reach_serves_the_others() -> None:
    found = fractions(centre("a"), centre("b"), fra={"unreachable": ["a"]}, ams={"unreachable": ["a", "b"]})
    assert found == {"fra": {"a": 0.0, "b": 1.0}, "ams": {"a": 0.5, "b": 0.5}, "lon": {"a": 0.5, "b": 0.5}}


def test_a_data_centre_of_unknown_distance_is_the_farthest() -> None:
    assert fractions(centre("a"), centre("b"), fra={"rtt_ms": {"b": 500}})["fra"] == {"a": 0.0, "b": 1.0}


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
