"""Figure 12 of the Maglev paper in small."""

import pytest

from lbmux.tools.simulate.resilience import Resilience, resilience
from lbmux.tools.simulate.simulation_result import Spread

SMALL = Resilience(backends=50, sizes=(1009, 10007), failures=(1, 5, 10), repeats=4)


def changed(settings: Resilience) -> dict[tuple[int, int], Spread]:
    rows = resilience(settings).rows
    return {(row["size_slots"], row["failed_backends"]): row["changed_slots_percent"] for row in rows}  # type: ignore


def test_more_failures_change_more_slots_and_at_least_those_of_the_failed() -> None:
    shares = changed(SMALL)
    for size in SMALL.sizes:
        one, five, ten = (shares[size, failed] for failed in SMALL.failures)
        assert one.high < five.low and five.high < ten.low
        assert one.low > 100 / 50 * 0.95 and ten.low > 100 * 10 / 50 * 0.95


def test_a_larger_table_changes_less() -> None:
    shares = changed(SMALL)
    assert shares[10007, 1].median < shares[1009, 1].median


def test_the_seed_decides_the_result() -> None:
    assert changed(SMALL) == changed(SMALL) != changed(Resilience(50, (1009, 10007), (1, 5, 10), 4, seed=9))


@pytest.mark.parametrize("failures", [(0,), (50,)])
def test_impossible_failures(failures: tuple[int]) -> None:
    with pytest.raises(ValueError, match="from 1 to 49"):
        resilience(Resilience(backends=50, sizes=(1009,), failures=failures))
