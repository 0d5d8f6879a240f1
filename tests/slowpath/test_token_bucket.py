"""The token bucket."""

from lbmux.slowpath.token_bucket import Bucket


def take(bucket: Bucket, now: float) -> bool:
    if not bucket.has(now):
        return False
    bucket.spend()
    return True


def test_burst_then_the_rate() -> None:
    bucket = Bucket(per_s=100, burst=10)
    assert sum(take(bucket, 0.0) for _ in range(20)) == 10
    assert sum(take(bucket, 0.05) for _ in range(20)) == 5


def test_no_more_than_the_burst_after_a_long_time() -> None:
    bucket = Bucket(per_s=100, burst=10)
    take(bucket, 0.0)
    assert sum(take(bucket, 1000.0) for _ in range(20)) == 10


def test_an_earlier_time_gives_nothing() -> None:
    bucket = Bucket(per_s=1, burst=1)
    assert take(bucket, 5.0)
    assert not take(bucket, 4.0)
    assert not take(bucket, 5.5)
    assert take(bucket, 6.0)


def test_a_charge_that_was_not_known_before_is_paid_back() -> None:
    bucket = Bucket(per_s=100, burst=10)
    assert bucket.has(0.0)
    bucket.spend(30)
    assert not bucket.has(0.2)
    assert bucket.has(0.25)
