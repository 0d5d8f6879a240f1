"""The trace has the numbers that it promises."""

import numpy as np
import pytest

from lbmux.tools.simulate.jet_trace import ADD, REMOVE, JetTrace, mean_length_s


def test_arrivals_have_the_exact_number_in_order() -> None:
    times = JetTrace(connections=5000, seconds=50).arrivals()
    assert len(times) == 5000 and (np.diff(times) >= 0).all() and times[0] >= 0 and times[-1] < 50


def test_each_removal_is_followed_by_an_addition() -> None:
    changes = JetTrace(removals_per_min=60).changes()
    assert changes == sorted(changes) and all(0 <= time <= 1000 for time, _ in changes)
    away = np.cumsum([1 if what == REMOVE else -1 for _, what in changes])
    assert away.min() >= 0 and 900 < sum(what == REMOVE for _, what in changes) < 1100
    assert sum(what == ADD for _, what in changes) > 600


def test_the_size_of_the_example_has_its_live_connections() -> None:
    trace = JetTrace()
    assert trace.connections / trace.seconds * mean_length_s() == pytest.approx(100_000, rel=0.02)


def test_the_seed_decides_the_trace() -> None:
    assert JetTrace(seed=3).changes() == JetTrace(seed=3).changes() != JetTrace(seed=4).changes()
