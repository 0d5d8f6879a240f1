"""Budgets that prefixes share."""

import random
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from lbmux.slowpath.source_budget import OVER_SHARE, US_PER_S, SourceBudget, cpu_budget

ONE, TWO = ip_address("198.51.100.7").packed, ip_address("203.0.113.9").packed


def allowed(take: Callable[[bytes, float], bool], per_s: dict[bytes, float], seconds: float = 2.0) -> Counter[bytes]:
    """Return how many packets of each source are allowed, which arrive in random order at these rates."""
    order = random.Random(1)
    arrivals = sorted(
        (order.uniform(0, seconds), one) for one, rate in per_s.items() for _ in range(int(rate * seconds))
    )
    return Counter(one for at, one in arrivals if take(one, at))


def test_one_source_alone_gets_the_whole_rate() -> None:
    counts = Counter[str]()
    taken = allowed(SourceBudget(200, "over", counts).take, {ONE: 20_000})[ONE]
    assert taken == pytest.approx(420, abs=2), "two seconds, and the burst"
    assert counts == {"over": 40_000 - taken}


@pytest.mark.parametrize("other", ["203.0.113.9", "2001:db8::1"])
def test_a_source_at_100_times_the_budget_leaves_another_at_least_90_percent_of_its_part(other: str) -> None:
    counts = Counter[str]()
    taken = allowed(SourceBudget(200, "over", counts).take, {ONE: 20_000, (two := ip_address(other).packed): 100})
    assert taken[two] >= 0.9 * 200
    assert taken.total() <= 441, "a debt is no larger than the burst"
    assert counts[OVER_SHARE] > 0


def test_what_others_do_not_use_is_not_lost() -> None:
    taken = allowed(SourceBudget(200, "over", Counter()).take, {ONE: 20_000, TWO: 10})
    assert taken[TWO] == 20 and taken[ONE] >= 390


def test_many_sources_get_equal_parts() -> None:
    sources = {bytes([10, 0, at, 1]): 200.0 for at in range(10)}
    taken = allowed(SourceBudget(200, "over", Counter()).take, sources, 10.0)
    assert len(taken) == 10 and sum(taken.values()) <= 2041
    assert sorted(taken.values())[3] > 150, "equal hashes share; a part is 200"


def test_sources_of_a_prefix_share_a_part() -> None:
    sources = {bytes([198, 51, 100, at]): 400.0 for at in range(50)} | {TWO: 100.0}
    assert allowed(SourceBudget(200, "over", Counter()).take, sources)[TWO] >= 180


def test_a_source_that_begins_later_gets_its_part_at_once() -> None:
    budget = SourceBudget(200, "over", Counter())
    for at in range(10_000):
        budget.take(ONE, at / 10_000)
    assert all(budget.take(TWO, 1.0 + at / 100) for at in range(20))


def test_a_source_that_is_gone_leaves_its_part_to_the_others() -> None:
    budget = SourceBudget(200, "over", Counter())
    allowed(budget.take, {ONE: 2000, TWO: 2000}, 1.0)
    assert sum(budget.take(ONE, 4.0 + at / 2000) for at in range(2000)) == pytest.approx(220, abs=2)


def test_cpu_time_is_shared_by_what_the_work_took() -> None:
    """Each packet of one source takes 1 ms, each of the other 0.2 ms: that is half of its part."""
    budget, took = cpu_budget(0.2, "over", Counter()), {ONE: 0.001, TWO: 0.0002}

    def work(source: bytes, now: float) -> bool:
        if not budget.has(source, now):
            return False
        budget.spend(source, took[source] * US_PER_S)
        return True

    done = allowed(work, {ONE: 10_000, TWO: 250})
    assert done[TWO] >= 0.9 * 500
    assert sum(took[one] * number for one, number in done.items()) <= 2 * 0.2 + 2 * 0.05


def test_no_tokens_for_anyone() -> None:
    assert not SourceBudget(0, "over", Counter()).take(ONE, 1.0)


def test_sources_without_an_address_share_one_bucket() -> None:
    taken = allowed(SourceBudget(200, "over", Counter()).take, {b"": 5000, b"?": 5000, ONE: 100})
    assert taken[ONE] >= 180
