"""Groups of clients by prefix: their sizes, quantiles, and what is not reported."""

from ipaddress import ip_address
from random import Random

import numpy as np
import pytest

from lbmux.addresses import to_pair
from lbmux.steering.client_groups import LEAST, RoundTripTimes, by_prefix


def grouped(*clients: tuple[str, float]) -> dict[str, RoundTripTimes]:
    pairs = np.array([to_pair(ip_address(address)) for address, _ in clients], np.uint64).reshape(-1, 2)
    report = by_prefix(pairs, np.array([rtt_ms for _, rtt_ms in clients]))
    return {str(one.prefix): one for one in report}


def several(prefix: str, count: int, rtt_ms: float = 10.0) -> list[tuple[str, float]]:
    return [(f"{prefix}{n % 200 + 1}", rtt_ms) for n in range(count)]


def test_each_prefix_with_enough_connections_is_a_group_in_both_families() -> None:
    report = grouped(*several("198.51.100.", 50), *several("203.0.113.", 70, 20.0), *several("2001:db8:7::", 50, 5.0))
    assert {prefix: (one.rtt_ms, one.samples) for prefix, one in report.items()} == {
        "198.51.100.0/24": (10.0, 50), "203.0.113.0/24": (20.0, 70), "2001:db8:7::/56": (5.0, 50),
    }  # fmt: skip


def test_small_groups_report_to_the_prefix_around_them() -> None:
    report = grouped(
        *several("10.1.0.", 30), *several("10.1.1.", 30), *several("10.1.15.", 60), *several("10.9.0.", 40)
    )
    assert {prefix: one.samples for prefix, one in report.items()} == {"10.1.15.0/24": 60, "10.1.0.0/20": 60}


def test_what_remains_small_is_not_reported() -> None:
    assert grouped() == {} and grouped(*several("10.1.0.", LEAST - 1)) == {}
    report = grouped(*several("10.0.0.", 30), *several("200.0.0.", 30))
    assert {prefix: one.samples for prefix, one in report.items()} == {"0.0.0.0/0": 60}


def test_the_interval_is_that_of_the_median() -> None:
    """The interval of a median of 400 samples lies within 20 ranks of the middle, by the binomial distribution."""
    times = Random(1).sample(range(400), 400)
    (change,) = grouped(*[(f"10.0.0.{n % 250}", float(rtt_ms)) for n, rtt_ms in enumerate(times)]).values()
    assert change.rtt_ms == pytest.approx(199.5) and (change.low_ms, change.high_ms) == (180.0, 219.0)
