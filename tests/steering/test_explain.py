from ipaddress import ip_network

import pytest

from lbmux.steering.explain import UnknownGroupError, explain
from lbmux.steering.steering_plan import plan
from tests.steering.pool import NOW, groups, latency, steering

LATENCY = latency({"198.51.1.0/24": {"fra": 10, "ams": 20}})


def test_the_best_first_with_samples_age_and_interval() -> None:
    some, options = groups(g1=10), steering(pops={"ams": {"healthy": False}})
    explanation = explain(
        ip_network("198.51.1.9/32"), options, some, LATENCY, plan(options, some, LATENCY, None, NOW), NOW
    )
    assert (explanation.group, explanation.users, explanation.source) == ("198.51.1.0/24", 10, "measured")
    fra, lon, ams = explanation.pops
    assert (fra.pop, fra.share, fra.low_ms, fra.high_ms, fra.samples, fra.age_s) == ("fra", 1, 8, 13, 80, 60)
    assert (lon.pop, lon.samples, lon.age_s) == ("lon", None, None)
    assert (ams.pop, ams.healthy, ams.share) == ("ams", False, 0)


def test_a_full_pop_says_how_much_worse_it_counts() -> None:
    options, some = steering(pops={"fra": {"capacity": 5}}), groups(g1=10)
    explanation = explain(
        ip_network("198.51.1.0/24"), options, some, LATENCY, plan(options, some, LATENCY, None, NOW), NOW
    )
    assert {one.pop: one.share for one in explanation.pops} == {"fra": 0.5, "ams": 0.5, "lon": 0}
    assert next(one.full_ms for one in explanation.pops if one.pop == "fra") == pytest.approx(10, rel=0.01)


def test_a_prefix_of_no_group() -> None:
    options, some = steering(), groups(g1=10)
    with pytest.raises(UnknownGroupError, match=r"203\.0\.113\.0/24: no group contains it; its clients go to lon"):
        explain(ip_network("203.0.113.0/24"), options, some, LATENCY, plan(options, some, LATENCY, None, NOW), NOW)
