"""Small experiments of the scoreboard with all real parts."""

import json
import os
import shutil
from typing import Any

import pytest

from lbmux.cli.main import run as lbmux

SEARCH = "/usr/sbin:/usr/local/sbin:/usr/bin"


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program, path=SEARCH) is None, reason=f"{program} is not installed")


def measured(capsys: pytest.CaptureFixture[str], *arguments: str, connections: int = 60) -> dict[str, Any]:
    """Measure each event with connections, each of which was there at the end."""
    status = lbmux(["lab", "run", *arguments, "--name", f"tb{os.getpid()}", "--connections", str(connections), "-j"])
    out, errors = capsys.readouterr()
    assert status == 0, (errors, out)
    said = json.loads(out)
    assert said["failures"] == []
    outcomes = {one["event"]: one for one in said["outcomes"]}
    assert all(one["connections"] == connections and one["new"] > 10 for one in outcomes.values())
    return outcomes


def broken(outcomes: dict[str, Any]) -> dict[str, int]:
    return {event: one["broken"] for event, one in outcomes.items() if one["broken"]}
