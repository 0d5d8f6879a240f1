"""The rule's invariants: they hold, and a broken rule is found."""

import pytest

from lbmux.tools.simulate.flow_invariants import InvariantError
from lbmux.tools.simulate.flow_model import Run
from lbmux.tools.simulate.flow_policies import Policy
from lbmux.tools.simulate.flow_scenarios import scenario


class Forced(Policy):
    """A policy that is checked although it does not follow the rule."""

    is_checked = True  # type: ignore[assignment]


def test_a_broken_rule_is_found() -> None:
    with pytest.raises(InvariantError, match=r"at \d+.0 s, flow \d+: a flow"):
        for seed in range(8):
            Run(Forced("settled too early", settle_s=10.0), scenario("planned", seed)).run()
