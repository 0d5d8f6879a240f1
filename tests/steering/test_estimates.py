from ipaddress import ip_network

import numpy as np

from lbmux.steering.estimates import UNKNOWN_MS, estimate
from tests.steering.pool import NOW, groups, latency


def test_a_longer_prefix_around_a_group_comes_before_its_resolver() -> None:
    some = groups(g1=(10, "192.0.2.53"), g2=(10, "192.0.2.53"))
    rtt = {"198.51.0.0/16": {"lon": 9}, "198.48.0.0/12": {"lon": 8}, "198.51.1.0/24": {"fra": 1}}
    estimates = estimate(some, latency(rtt), 0, NOW, 3600)
    assert estimates.sources == ("measured", "prefix 198.51.0.0/16")
    assert estimates.rtt_ms[:, 1].tolist() == [9 + UNKNOWN_MS, 9 + UNKNOWN_MS, 9]


def test_the_mean_of_a_resolver_is_weighted_by_users() -> None:
    some = groups(g1=(30, "192.0.2.53"), g2=(10, "192.0.2.53"), g3=(1, "192.0.2.53"))
    rtt = {"198.51.1.0/24": {"fra": 10, "ams": 50}, "198.51.2.0/24": {"fra": 30}}
    estimates = estimate(some, latency(rtt), 0, NOW, 3600)
    assert estimates.rtt_ms[:2, 2].tolist() == [15, 50]
    assert not estimates.is_measured[:, 2].any() and estimates.is_measured[0].tolist() == [True, True, False]


def test_without_anything_the_default_stands_out() -> None:
    estimates = estimate(groups(g1=1), latency({}), 1, NOW, 3600)
    assert estimates.sources == ("default",) and int(np.argmin(estimates.rtt_ms[:, 0])) == 1


def test_a_group_is_found_by_the_longest_prefix() -> None:
    some = groups(g1=1, g2=1)
    assert some.find(ip_network("198.51.2.7/32")) == 1
    assert some.find(ip_network("198.0.0.0/8")) is None and some.find(ip_network("2001:db8::/32")) is None
