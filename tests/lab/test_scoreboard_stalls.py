"""What planned changes cost connections, and what the loss of a mux does: experiments of the scoreboard in small.

Run by itself: other load on the machine would be measured too.
"""

import json
from pathlib import Path

import pytest

from tests.lab.measured import broken, measured, needs

STALL_MS = 50.0
"""What a change that is planned may cost a connection, at most."""
PLANNED = ("stop-mux", "add-mux", "reseed-router", "drain-backend", "add-backend", "reweight-backend", "reload")
LOST = ("kill-mux+add-backend", "lose-mux+drain-backend")


@pytest.mark.root
@needs("bird")
def test_connections_survive_changes_of_muxes_and_backends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tables have changed just before the mux is lost, so many of its connections are not where they say."""
    path = tmp_path / "scoreboard.json"
    outcomes = measured(capsys, "ananta", *PLANNED, *LOST, "kill-backend", "--seconds", "1.2", "-w", str(path))
    assert [one["event"] for one in json.loads(path.read_text())["outcomes"]] == list(outcomes)
    assert list(outcomes) == [*PLANNED, *LOST, "kill-backend"]
    assert broken(outcomes).keys() == {"kill-backend"}
    assert 0 < outcomes["kill-backend"]["broken"] == outcomes["kill-backend"]["own"] < 60
    assert max(outcomes[event]["stall_ms"] for event in PLANNED) < STALL_MS


@pytest.mark.root
@needs("bird")
def test_in_user_space_too_and_with_weights(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = measured(
        capsys, "maglev", "drain-backend", "freeze-mux", "lose-mux", "--driver", "packet", "--seconds", "1.2"
    )  # fmt: skip
    assert not broken(outcomes) and outcomes["drain-backend"]["stall_ms"] < STALL_MS
