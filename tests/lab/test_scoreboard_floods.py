"""A flood of another VIP, at a small stated capacity: no connection breaks, and the flooded VIP is isolated.

How soon, and how long connections wait, is a busy machine's to say: `lbmux lab run` measures it on a quiet one.
"""

import pytest

from tests.lab.measured import broken, measured, needs

LOAD, CONNECTIONS = ("--short-per-s", "5", "--seconds", "6"), 10
"""So few that a flood is one at a fraction of its rate, too: a busy machine sends no more."""


@pytest.mark.root
@needs("bird")
@pytest.mark.parametrize(("driver", "event"), [("packet", "flood-syn"), ("xdp", "flood-vip")])
def test_no_connection_breaks_and_the_flooded_vip_is_isolated(
    capsys: pytest.CaptureFixture[str], driver: str, event: str
) -> None:
    outcomes = measured(capsys, "ananta", event, "--driver", driver, *LOAD, connections=CONNECTIONS)
    assert not broken(outcomes) and outcomes[event]["isolated_ms"] is not None, outcomes
