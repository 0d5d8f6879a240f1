"""What an earlier map changes: users by their shares, latencies, and sites that it may not use."""

from typing import Any

import pytest

from lbmux.steering.map_change import MapChange, UnusableMapError, change
from lbmux.steering.steering_map import SteeringMap, Weights
from tests.steering.pool import NOW, POPS, groups, latency, steering

GROUPS = groups(g1=100, g2=50)
LATENCY = latency({"198.51.1.0/24": {"fra": 10, "ams": 30}, "198.51.2.0/24": {"fra": 40, "ams": 20}})


def map_of(*weights: Weights, **fractions: float) -> SteeringMap:
    answers = dict(zip(GROUPS.prefixes, weights, strict=False))
    pops = {name: ("192.0.2.1",) for name in POPS}
    return SteeringMap("www.example.net", 30, pops, answers, "fra", fractions={"fra": fractions})


def changed(present: SteeringMap | None, wanted: SteeringMap, **more: Any) -> MapChange:
    return change(steering(**more), GROUPS, LATENCY, present, wanted, NOW)


def test_users_move_by_their_shares_and_latencies_are_means() -> None:
    found = changed(map_of({"fra": 1.0}, {"fra": 1.0}), map_of({"fra": 0.8, "ams": 0.2}, {"ams": 1.0}))
    assert (found.users, found.moved) == pytest.approx((150, 20 + 50))
    assert found.rtt_ms == pytest.approx((80 * 10 + 20 * 30 + 50 * 20) / 150)
    assert found.rtt_ms_before == pytest.approx((100 * 10 + 50 * 40) / 150)


def test_no_user_moves_without_a_map_before_or_in_a_new_group() -> None:
    wanted = map_of({"fra": 1.0}, {"ams": 1.0})
    assert (first := changed(None, wanted)).moved == 0 and first.rtt_ms_before is None
    assert changed(map_of({"fra": 1.0}), wanted).moved == 0
    assert changed(wanted, wanted).moved == 0


@pytest.mark.parametrize(
    ("more", "sites"),
    [
        ({"pops": {"ams": {"healthy": False}}}, ("ams", "dc1")),
        ({"data_centres": [{"name": "dc1", "capacity": 1, "draining": True}]}, ("dc1",)),
        ({"data_centres": [{"name": "dc1", "capacity": 1, "healthy": False}]}, ("dc1",)),
        ({"data_centres": []}, ("dc1",)),
    ],
)
def test_a_map_that_uses_a_site_that_takes_nothing_is_refused(more: dict[str, Any], sites: tuple[str, ...]) -> None:
    with pytest.raises(UnusableMapError) as error:
        changed(None, map_of({"fra": 1.0}, {"ams": 1.0}, dc1=1.0, dc2=0.0), **more)
    assert error.value.sites == sites
