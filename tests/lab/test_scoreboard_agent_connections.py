"""Connections that an agent has no packets of for a while: because it is away, or because nothing is sent."""

import pytest

from tests.lab.measured import broken, measured, needs

EVENTS = ("restart-agent", "crash-agent", "half-closed", "idle-push")


@pytest.mark.root
@needs("bird")
@pytest.mark.parametrize("driver", ["packet", "xdp"])
def test_no_connection_breaks(capsys: pytest.CaptureFixture[str], driver: str) -> None:
    """Idle times are 1 s while servers keep silent for 4 s; a crashed agent is away for 5 s."""
    outcomes = measured(capsys, "ananta", *EVENTS, "--driver", driver, "--seconds", "2")
    assert list(outcomes) == list(EVENTS) and not broken(outcomes)
