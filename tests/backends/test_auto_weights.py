from itertools import pairwise

import pytest

from lbmux.backends.auto_weights import CHANGE_S, RAISE_AFTER, RECENT_S, RETURN_S, WEIGHTS, AutoWeights
from lbmux.config.models import Config
from lbmux.health.load import LOAD_S, Load

NAMES = ("b1", "b2", "b3", "b4")


def configured(**weights: int | str) -> Config:
    backends = [
        {"name": name, "dip": f"10.0.2.{at}", "weight": weights.get(name, "auto")} for at, name in enumerate(NAMES, 1)
    ]
    service = {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80, "health": {"by": "agent"}}
    return Config.model_validate({"services": [service | {"backends": backends}]})


class Pool:
    """Four backends whose loads are reported; ``now``: the time of the last report."""

    def __init__(self) -> None:
        self.auto, self.now = AutoWeights(), 1000.0
        self.auto.configure(configured().services, {}, {}, self.now)
        self.report(1)

    def report(self, times: int = 2, **loads: float) -> dict[str, int]:
        """Report loads several times, 0.5 of the backends that are not named; return the weights."""
        for _ in range(times):
            self.now += LOAD_S
            for name in NAMES:
                self.auto.report(("web", name), Load(loads.get(name, 0.5), 0, 0), self.now)
        return {name: self.auto.weights["web", name] for name in NAMES}


def test_equal_loads_change_nothing() -> None:
    pool = Pool()
    assert all(pool.report() == dict.fromkeys(NAMES, 100) for _ in range(20))


def test_small_differences_change_nothing() -> None:
    pool = Pool()
    assert all(pool.report(b1=0.6, b2=0.42) == dict.fromkeys(NAMES, 100) for _ in range(20))


def test_an_overloaded_backend_loses_weight_and_the_others_keep_theirs() -> None:
    assert Pool().report(b1=50) == {"b1": 75, "b2": 100, "b3": 100, "b4": 100}


def test_an_idle_backend_gains_weight_after_four_reports() -> None:
    pool = Pool()
    assert pool.report(RAISE_AFTER - 1, b2=0.3)["b2"] == 100
    assert pool.report(1, b2=0.3)["b2"] == 125


def test_a_few_quiet_seconds_raise_no_weight() -> None:
    pool = Pool()
    for _ in range(10):
        pool.report(RAISE_AFTER - 1, b2=0.3)
        assert pool.report(1) == dict.fromkeys(NAMES, 100)


def test_idle_services_keep_their_weights() -> None:
    pool = Pool()
    assert all(pool.report(b1=0.2, b2=0.01, b3=0.0, b4=0.0) == dict.fromkeys(NAMES, 100) for _ in range(20))


def test_a_load_that_changes_everywhere_changes_no_weight() -> None:
    pool = Pool()
    for load in (0.5, 2.0, 0.3, 0.9):
        assert pool.report(**dict.fromkeys(NAMES, load)) == dict.fromkeys(NAMES, 100)


def test_a_load_that_has_halved_is_left_alone() -> None:
    pool = Pool()
    for load in (50, 24, 11, 5):
        assert pool.report(1, b1=load)["b1"] == 100
    assert pool.report(1, b1=4)["b1"] == 75


def test_one_report_changes_nothing() -> None:
    pool = Pool()
    for load in (5.0, 0.5, 0.26, 5.0):
        assert pool.report(1, b1=load) == dict.fromkeys(NAMES, 100)


def test_a_weight_changes_at_most_every_five_seconds_and_by_five_percent_at_least() -> None:
    pool, seen = Pool(), [100]
    for _ in range(40):
        seen.append(pool.report(1, b1=5)["b1"])
    changed = [at for at in range(1, 41) if seen[at] != seen[at - 1]]
    assert all((later - earlier) * LOAD_S >= CHANGE_S for earlier, later in pairwise(changed))
    assert all(abs(seen[at] / seen[at - 1] - 1) >= 0.05 for at in changed)
    assert seen[-1] == WEIGHTS[0]  # and no lower


def test_a_weight_returns_slowly_when_its_load_is_like_the_others() -> None:
    pool = Pool()
    assert pool.report(b1=50)["b1"] == 75
    changed, seen = pool.now, list[tuple[float, int]]()
    while not seen or seen[-1][1] < 98:
        before = pool.auto.weights["web", "b1"]
        if (weight := pool.report(1)["b1"]) != before:
            seen.append((pool.now - changed, weight))
            changed = pool.now
    assert [weight for _, weight in seen] == [79, 83, 88, 93, 98]
    assert all(after_s >= RETURN_S for after_s, _ in seen)


def test_old_reports_do_not_count() -> None:
    pool = Pool()
    pool.report(b1=9, b2=90, b3=90, b4=90)
    pool.now += RECENT_S
    assert not pool.auto.report(("web", "b1"), Load(9, 0, 0), pool.now)  # it is like itself


def test_backends_with_a_number_or_without_new_flows_are_not_followed() -> None:
    auto = AutoWeights()
    auto.configure(configured(b1=0).services, {("web", "b2"): "drain"}, {("web", "b3"): 40}, 0.0)
    assert auto.weights == {("web", "b3"): 40, ("web", "b4"): 100}
    assert not auto.report(("web", "b1"), Load(9, 9, 9), 1.0)


def test_a_load_that_is_not_a_number_is_ignored() -> None:
    pool = Pool()
    assert not pool.auto.report(("web", "b1"), Load(float("nan"), 0, 0), pool.now)
    assert pool.report(b1=50)["b1"] == 75


@pytest.mark.parametrize("load", [Load(0.5, 0.25, 0), Load(0, 0.75, 0), Load(0.25, 0, 4)])
def test_all_parts_of_a_load_count(load: Load) -> None:
    assert load.total == 0.75
