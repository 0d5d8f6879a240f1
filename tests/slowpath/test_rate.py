"""The token bucket."""

from lbmux.slowpath.rate import Bucket


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
