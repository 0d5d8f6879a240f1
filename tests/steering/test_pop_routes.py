"""Routes of PoPs: withdrawn without users, longer paths when nearly full, and no change back and forth."""

from typing import Any

import pytest

from lbmux.steering.pop_routes import pop_routes
from lbmux.steering.steering_map import Routes, SteeringMap
from tests.steering.pool import POPS, steering

NORMAL, FULL, WITHDRAWN = Routes(), Routes(prepend=3), Routes(withdrawn=True)


def routes(load: float, users: float = 10, before: Routes | None = None, **more: Any) -> Routes:
    """The routes of PoP fra, which has capacity for 1000."""
    present = SteeringMap("www.example.net", 30, {}, {}, "fra", routes={"fra": before}) if before else None
    return pop_routes(steering(**more), dict.fromkeys(POPS, users), {"fra": load}, present)["fra"]


@pytest.mark.parametrize(
    ("load", "users", "expected"),
    [(0, 10, NORMAL), (899, 10, NORMAL), (900, 10, FULL), (5000, 10, FULL), (5000, 0, WITHDRAWN), (0, 0, WITHDRAWN)],
)
def test_a_pop_follows_its_users_and_its_load(load: float, users: float, expected: Routes) -> None:
    assert routes(load, users) == expected


@pytest.mark.parametrize(("load", "expected"), [(890, FULL), (700, FULL), (699, NORMAL)])
def test_a_full_pop_stays_so_until_it_has_clearly_less_load(load: float, expected: Routes) -> None:
    assert routes(load, before=FULL) == expected


def test_the_present_load_counts_if_it_is_higher() -> None:
    loads = {name: {"load": 950 if name == "fra" else 5} for name in POPS}
    assert routes(10, pops=loads) == FULL


def test_prefixes_and_paths_are_those_of_the_file() -> None:
    bgp = {"normal": {"length": 28, "length6": 64}, "full": {"length": 24, "length6": 48, "prepend": 1}}
    assert routes(0, bgp=bgp) == Routes(False, 0, 28, 64)
    assert routes(950, bgp=bgp) == Routes(False, 1, 24, 48)
