"""Maps: who moves when a PoP is lost, large groups, groups without samples, and what is never done."""

from dataclasses import replace
from ipaddress import ip_network

import numpy as np
import pytest

from bench.steering import random_region
from lbmux.config.steering_models import Steering
from lbmux.steering.measurements import Groups, Latency
from lbmux.steering.steering_map import SteeringMap
from lbmux.steering.steering_plan import NoPopError, Plan, plan
from tests.steering.pool import NOW, POPS, groups, latency, steering

G1, G2 = ip_network("198.51.1.0/24"), ip_network("198.51.2.0/24")
TWO = latency({str(G1): {"fra": 10, "ams": 20, "lon": 30}, str(G2): {"fra": 10, "ams": 12, "lon": 30}})


def test_each_group_goes_to_the_pop_with_the_least_round_trip() -> None:
    planned = plan(steering(), groups(g1=10, g2=10), TWO, None, NOW)
    assert planned.steering_map.groups == {G1: {"fra": 1.0}, G2: {"fra": 1.0}}
    assert (planned.rtt_ms, planned.rtt_ms_before, planned.moved, planned.overload) == (10, None, 0, 0)


def test_a_full_pop_keeps_the_groups_that_lose_most_elsewhere() -> None:
    small = steering(pops={"fra": {"capacity": 60}})
    many = groups(**{f"g{n}": 1.0 for n in range(1, 101)})
    rtt = {f"198.51.{n}.0/24": {"fra": 10, "ams": 10 + n, "lon": 200} for n in range(1, 101)}
    planned = plan(small, many, latency(rtt), None, NOW).steering_map
    kept = {int(str(prefix).split(".")[2]) for prefix, weights in planned.groups.items() if "fra" in weights}
    assert kept == set(range(41, 101))


def test_a_user_moves_only_for_more_than_the_cost_of_moving() -> None:
    present = SteeringMap("", 30, {}, {G1: {"ams": 1.0}, G2: {"ams": 1.0}}, "lon")
    for cost_ms, moved in ((11, 0.0), (9, 10.0), (1, 20.0)):
        planned = plan(steering(move_cost_ms=cost_ms), groups(g1=10, g2=10), TWO, present, NOW)
        assert planned.moved == moved


def test_a_dead_pop_gets_nothing_even_if_the_others_are_overloaded() -> None:
    dead = steering(pops={"fra": {"healthy": False}, "ams": {"capacity": 5}, "lon": {"capacity": 5}})
    planned = plan(dead, groups(g1=10, g2=10), TWO, None, NOW)
    assert {pop for weights in planned.steering_map.groups.values() for pop in weights} <= {"ams", "lon"}
    assert planned.overload == 10
    dead = steering(pops={name: {"healthy": False} for name in POPS})
    with pytest.raises(NoPopError, match="the map in force stays"):
        plan(dead, groups(g1=10), TWO, None, NOW)


def test_a_group_over_1_percent_gets_weights_if_one_pop_does_not_hold_it() -> None:
    small = steering(pops={"fra": {"capacity": 60}})
    planned = plan(small, groups(g1=100), TWO, None, NOW).steering_map
    assert planned.groups == {G1: {"fra": 0.6, "ams": 0.4}}
    again = plan(small, groups(g1=100), TWO, planned, NOW)
    assert again.moved == 0 and again.steering_map.groups == planned.groups


def test_load_says_how_much_of_the_capacity_a_user_takes() -> None:
    loaded = {"fra": {"capacity": 100, "load": 150}, "ams": {"load": 50}, "lon": {"load": 0}}
    planned = plan(steering(pops=loaded), groups(g1=100), TWO, None, NOW)
    assert planned.steering_map.groups == {G1: {"fra": 0.5, "ams": 0.5}}
    assert [pop.load for pop in planned.pops] == [100, 100, 0]


def test_a_group_without_samples_goes_where_its_resolver_goes() -> None:
    some = groups(g1=(10, "203.0.113.53"), g2=(1, "203.0.113.53"), g3=(1, "203.0.113.99"))
    planned = plan(steering(), some, latency({str(G1): {"ams": 10, "fra": 20}}), None, NOW)
    assert [next(iter(weights)) for weights in planned.steering_map.groups.values()] == ["ams", "ams", "lon"]
    assert planned.estimates.sources == ("measured", "resolver 203.0.113.53", "default")
    assert planned.steering_map.estimated == {G2, ip_network("198.51.3.0/24")}


def large(capacity_ratio: float) -> tuple[Steering, Groups, Latency]:
    """A pool of 12 PoPs with 1200 groups, none over 1 % of the users."""
    planned = random_region(1200, 12, 7, capacity_ratio)
    names = [f"p{n}" for n in range(12)]
    pops = [{"name": name, "addresses": ["192.0.2.1"], "capacity": float(capacity)}
            for name, capacity in zip(names, planned.capacity, strict=True)]  # fmt: skip
    configured = Steering.model_validate({
        "name": "www.example.net", "groups": "", "latency": "", "pops": pops, "default": "p0", "move_cost_ms": 50,
    })  # fmt: skip
    prefixes = tuple(ip_network((0x0A000000 + (n << 8), 24)) for n in range(1200))
    rtt, ones = planned.cost / planned.users, np.ones_like(planned.cost)
    rows = {prefix: at for at, prefix in enumerate(prefixes)}
    return configured, Groups(prefixes, planned.users, ("",) * 1200), Latency(rows, rtt, rtt, rtt, ones, ones * NOW)


def without(configured: Steering, name: str) -> Steering:
    pops = tuple(pop.model_copy(update={"healthy": pop.name != name}) for pop in configured.pops)
    return configured.model_copy(update={"pops": pops})


def lost(capacity_ratio: float) -> tuple[Plan, Plan, Groups]:
    """Plans before and after the loss of the PoP with most users."""
    configured, some, rtt = large(capacity_ratio)
    before = plan(configured, some, rtt, None, NOW)
    name = max(before.pops, key=lambda pop: pop.users).name
    return before, plan(without(configured, name), some, rtt, before.steering_map, NOW), some


def test_nothing_moves_if_nothing_has_changed() -> None:
    configured, some, rtt = large(1.1)
    before = plan(configured, some, rtt, None, NOW)
    assert plan(configured, some, rtt, before.steering_map, NOW).moved == 0


def test_only_the_users_of_a_lost_pop_move_while_the_others_have_capacity() -> None:
    before, after, _ = lost(4.0)
    assert after.moved == pytest.approx(after.moved_from_dead) and after.moved > 0
    assert after.moved == pytest.approx(max(pop.users for pop in before.pops))


def test_others_move_only_from_pops_that_have_become_full() -> None:
    before, after, _ = lost(1.2)
    full = {pop.name for pop in after.pops if pop.price_ms > 0}
    for prefix, weights in after.steering_map.groups.items():
        was = before.steering_map.groups[prefix]
        if weights != was and next(iter(was)) in {pop.name for pop in after.pops if pop.capacity}:
            assert next(iter(was)) in full
    assert after.moved > after.moved_from_dead  # some are forced
    assert after.overload == 0 and all(pop.load <= pop.capacity * 1.000001 for pop in after.pops)


def test_the_default_is_a_live_pop() -> None:
    planned = plan(steering(pops={"lon": {"healthy": False}}), groups(g1=10, g2=10), TWO, None, NOW)
    assert planned.steering_map.default == "fra"


def test_old_samples_do_not_count() -> None:
    planned = plan(steering(max_age_s=60), groups(g1=10), replace(TWO, time=TWO.time - 3600), None, NOW)
    assert planned.estimates.sources == ("default",)
