"""The share of sessions that goes to the second-best PoP."""

from collections.abc import Sequence
from ipaddress import ip_network

import numpy as np
import pytest

from lbmux.steering import exploration
from lbmux.steering.exploration import explored
from lbmux.steering.steering_map import Weights
from lbmux.steering.steering_plan import plan
from tests.steering.pool import NOW, groups, latency, steering

NAMES = ("a", "b", "c")
RTT_MS = np.array([[10.0, 30.0, 10.0], [20.0, 10.0, 15.0], [30.0, 20.0, 90.0]])


def found(weights: Sequence[Weights], has_capacity: tuple[bool, ...] = (True, True, True)) -> list[Weights]:
    users = np.array([5.0, 9.0, 1.0][: len(weights)])
    return explored(weights, RTT_MS[:, : len(weights)], users, np.array(has_capacity), NAMES, 0.01)


def test_the_second_best_pop_gets_the_share() -> None:
    assert found([{"a": 1.0}, {"b": 1.0}]) == [{"a": 0.99, "b": 0.01}, {"b": 0.99, "c": 0.01}]


def test_a_pop_without_spare_capacity_gets_none_and_the_next_one_does() -> None:
    assert found([{"a": 1.0}], (True, False, True)) == [{"a": 0.99, "c": 0.01}]
    assert found([{"a": 1.0}], (True, False, False)) == [{"a": 1.0}]


def test_a_group_with_weights_of_its_own_stays() -> None:
    assert found([{"a": 0.6, "b": 0.4}]) == [{"a": 0.6, "b": 0.4}]


def test_the_pairs_of_most_users_count_if_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exploration, "MOST_PAIRS", 1)
    assert found([{"a": 1.0}, {"b": 1.0}, {"a": 1.0}]) == [{"a": 1.0}, {"b": 0.99, "c": 0.01}, {"a": 1.0}]


def test_a_map_explores_and_moves_no_user_by_it() -> None:
    prefix = ip_network("198.51.1.0/24")
    measured = latency({str(prefix): {"fra": 10, "ams": 20, "lon": 30}})
    pool = steering(explore=0.01, pops={"ams": {"healthy": False}})
    planned = plan(pool, groups(g1=100), measured, None, NOW)
    assert planned.steering_map.groups == {prefix: {"fra": 0.99, "lon": 0.01}}
    assert plan(pool, groups(g1=100), measured, planned.steering_map, NOW).moved == 0


def test_a_pop_over_90_percent_of_its_capacity_is_not_explored() -> None:
    near, far = ip_network("198.51.1.0/24"), ip_network("198.51.2.0/24")
    times = {str(near): {"fra": 10, "ams": 20, "lon": 30}, str(far): {"fra": 90, "ams": 10, "lon": 99}}
    for capacity, second in ((10, "lon"), (20, "ams")):
        pool = steering(explore=0.01, pops={"ams": {"capacity": capacity}})
        planned = plan(pool, groups(g1=990, g2=10), latency(times), None, NOW).steering_map
        assert planned.groups[near] == {"fra": 0.99, second: 0.01} and planned.groups[far]["ams"] >= 0.99
