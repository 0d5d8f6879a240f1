"""Events of managers under connections, with all real parts: an etcd cluster, managers, muxes and agents."""

import pytest

from lbmux.lab.scoreboard import scenarios
from tests.lab.measured import broken, measured, needs

EVENTS = ("kill-manager", "lose-3-managers", "partition-mux")


@pytest.mark.root
@needs("bird")
@needs("etcd")
def test_connections_do_not_notice_managers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another primary is elected, a change without a majority is refused, and a mux follows again after a partition."""
    monkeypatch.setattr(scenarios, "MANAGERS", 3)
    outcomes = measured(capsys, "ananta-managed", *EVENTS, "--driver", "packet", "--seconds", "1")
    assert list(outcomes) == [*EVENTS] and not broken(outcomes)
