"""When a revision must not go on from its canary."""

import pytest

from lbmux.api.answers import Counters, VerdictLine
from lbmux.manager.canary import LEAST_PACKETS, Sample, sample, trouble
from tests.api.lines import health_line

GOOD = Sample(packets=10_000, drops=10, resets=10)
SOME = LEAST_PACKETS


@pytest.mark.parametrize(
    ("canary", "others"),
    [
        (GOOD, [GOOD]),
        (Sample(), [GOOD]),  # without traffic there is no verdict
        (Sample(10_000, drops=SOME - 1, resets=SOME - 1), [Sample(10_000)]),  # too few for a verdict
        (Sample(10_000, drops=SOME), [Sample(10_000, drops=SOME // 2)]),  # exactly twice as many
        (Sample(1_000, drops=SOME), [Sample(100_000, drops=1000)]),
        (Sample(10_000, drops=500), [Sample(10_000, drops=900), Sample(10_000)]),  # the others together
        (Sample(unhealthy=2), [Sample(unhealthy=1)]),
        (Sample(unhealthy=-3), [Sample()]),
    ],
)
def test_a_canary_that_is_well(canary: Sample, others: list[Sample]) -> None:
    assert trouble(canary, others, is_over=True) == ""


@pytest.mark.parametrize(
    ("canary", "others", "reason"),
    [
        (Sample(1000, drops=SOME), [Sample(1000)], f"{SOME} drops in 1000 packets (2.00%), the other muxes 0 in 1000"),
        (Sample(SOME, drops=SOME), [Sample()], f"{SOME} drops in {SOME} packets (100.00%), the other muxes 0 in 0"),
        (Sample(1000, resets=90), [Sample(1000, resets=20)], "90 resets in 1000 packets (9.00%), the other muxes 20 in "
         "1000"),
        (Sample(1000, drops=41), [Sample(2000, drops=40)], "41 drops in 1000 packets (4.10%), the other muxes 40 in "
         "2000"),
        (Sample(unhealthy=1), [Sample(unhealthy=-4)], "1 backend became unhealthy, at the other muxes 0"),
    ],
)  # fmt: skip
def test_a_canary_with_trouble(canary: Sample, others: list[Sample], reason: str) -> None:
    assert trouble(canary, others, is_over=True) == reason


def test_new_backends_may_be_unhealthy_until_the_end() -> None:
    assert trouble(Sample(unhealthy=1), [Sample()], is_over=False) == ""


def test_what_counts() -> None:
    lines = [
        VerdictLine("forwarded", "send", 900, 0), VerdictLine("not_vip", "pass", 5000, 0),
        VerdictLine("denied", "drop", 60, 0), VerdictLine("no_backend", "drop", 10, 0),
    ]  # fmt: skip
    slow = {"rejected_reset": 20, "returned_reset": 10, "echo_answered": 7}
    health = [health_line(state=state) for state in ("up", "down", "draining", "down")]
    counted = sample(Counters(1, "mux", lines, {}, None, None, slow), health)
    assert counted == Sample(packets=1000, drops=70, resets=30, unhealthy=2)
    assert counted.since(GOOD) == Sample(-9000, 60, 20, 2)
