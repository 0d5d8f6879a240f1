"""Which live flows a change of the configuration moves."""

import pytest

from lbmux.backends.moved_flows import Flows, flows, least_moved
from lbmux.backends.reload_cost import diff
from lbmux.config.models import Config
from tests.backends.test_reload_cost import FOUR, configured

LIVE = {("web", "a"): 10, ("web", "d"): 7, ("web", "gone by hand"): 1}


@pytest.mark.parametrize(("new", "expected"), [
    (configured({"a": 1, "b": 1, "c": 1}), Flows(18, 0, 7)),
    (configured(FOUR | {"d": 0}), Flows(18)),  # drained: its flows stay
    (configured({"a": 1, "b": 1, "c": 1, "other": 1}), Flows(18)),  # the name does not matter
    (configured(FOUR, port=81), Flows(18, 17)),
    (configured({"b": 1}, name="other", vip="192.0.2.9"), Flows(18, 17)),
], ids=["removed", "drained", "renamed", "another port", "no such service"])  # fmt: skip
def test_flows(new: Config, expected: Flows) -> None:
    assert flows(configured(FOUR), new, LIVE) == {"web": expected}


@pytest.mark.parametrize(("weights", "share"), [
    (FOUR, 0.0), (FOUR | {"e": 1}, 0.2), ({"a": 1, "b": 1, "c": 1}, 0.25), (FOUR | {"d": 0}, 0.25),
    (FOUR | {"a": 5}, 0.375), ({}, 1.0),
])  # fmt: skip
def test_the_least_share_of_slots_that_moves(weights: dict[str, int], share: float) -> None:
    """Maglev moves no less, and at most a few slots in a hundred more."""
    before, after = configured(FOUR), configured(weights)
    assert least_moved(before.services[0], after.services[0]) == pytest.approx(share)
    (moved,) = [one.slots_moved for one in diff(before, after)] or [0.0]
    assert moved is not None and share - 0.01 <= moved < share + 0.2


def test_another_vip_moves_all_and_nothing_moves_from_no_table() -> None:
    before, after = configured(FOUR), configured(FOUR, vip="192.0.2.2")
    assert least_moved(before.services[0], after.services[0]) == pytest.approx(1.0)
    assert least_moved(configured({}).services[0], before.services[0]) == 0.0
