"""The token bucket."""

from lbmux.slowpath.token_bucket import Bucket, CpuBudget


def test_burst_then_the_rate() -> None:
    bucket = Bucket(per_s=100, burst=10)
    assert sum(bucket.take(0.0) for _ in range(20)) == 10
    assert bucket.refused == 10
    assert sum(bucket.take(0.05) for _ in range(20)) == 5


def test_no_more_than_the_burst_after_a_long_time() -> None:
    bucket = Bucket(per_s=100, burst=10)
    bucket.take(0.0)
    assert sum(bucket.take(1000.0) for _ in range(20)) == 10


def test_an_earlier_time_gives_nothing() -> None:
    bucket = Bucket(per_s=1, burst=1)
    assert bucket.take(5.0)
    assert not bucket.take(4.0)
    assert not bucket.take(5.5)
    assert bucket.take(6.0)


def test_a_budget_of_cpu_time_has_a_share_of_a_core_and_something_at_once() -> None:
    budget = CpuBudget(0.5, burst_s=0.1)
    assert budget.is_left(0.0)
    budget.spend(0.15)  # work that starts with tokens left may use more
    assert not budget.is_left(0.05)
    assert budget.is_left(0.2)
    budget.spend(1.0)
    assert not budget.is_left(2.0) and budget.is_left(2.5)


def test_a_budget_does_not_grow_while_it_is_not_used() -> None:
    budget = CpuBudget(0.5, burst_s=0.1)
    assert budget.is_left(1000.0)
    budget.spend(0.1)
    assert not budget.is_left(1000.0)
