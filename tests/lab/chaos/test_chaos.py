"""Chaos in a lab: a short run with a fixed seed, and one that has to fail."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lbmux.cli.main import run as lbmux
from lbmux.lab.chaos import chaos
from lbmux.lab.chaos.chaos_run import ChaosRun, Result
from lbmux.lab.chaos.invariants import Violation
from lbmux.lab.chaos.schedule import Step
from lbmux.lab.chaos.shortest import FAILURES
from tests.lab.measured import needs


@pytest.mark.root
@pytest.mark.slow
@needs("bird")
def test_nothing_is_violated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Driver xdp: on a machine without CPU time the watchdogs of muxes in user space withdraw their routes."""
    written, seed = tmp_path / "chaos.json", "2096"
    arguments = ("--driver", "xdp", "--seed", seed, "--seconds", "25", "--connections", "40", "--search-minutes", "0")
    status = lbmux(["lab", "chaos", *arguments, "--name", "tc", "-w", str(written)])
    said, (out, errors) = json.loads(written.read_text()), capsys.readouterr()
    assert status == 0, (errors, out)
    assert said["result"]["violations"] == [] and said["shortest"] is None
    assert said["result"]["steps"] == len(said["schedule"]) == 7 and said["result"]["answered"] > 100
    assert "0 violations" in out and f"seed {seed}" in errors


def test_a_failed_run_is_searched_and_the_exit_code_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The made-up system fails whenever an agent is killed."""
    runs: list[list[str]] = []

    def run(self: ChaosRun, steps: Sequence[Step]) -> Result:
        runs.append([step.event for step in steps])
        violated = [Violation(9.0, "it broke")] if "kill-agent" in runs[-1] else []
        return Result(steps=len(steps), violations=violated)

    class Idle:
        scenario = None

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: None

    monkeypatch.setattr(ChaosRun, "run", run)
    monkeypatch.setattr(ChaosRun, "__init__", lambda self, *_: None)
    monkeypatch.setattr(chaos, "Lab", Idle)
    monkeypatch.setattr(chaos, "SystemUnderTest", Idle)
    assert lbmux(["lab", "chaos", "--seed", "1", "-j"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert [step["event"] for step in said["shortest"]] == ["kill-agent"]
    assert said["result"]["violations"] == [{"at_s": 9.0, "what": "it broke"}]
    assert runs[-FAILURES:] == [["kill-agent"]] * FAILURES


@pytest.mark.parametrize("arguments", [["nowhere"], ["facebook"], ["--seconds", "1"], ["--search-minutes", "16"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert lbmux(["lab", "chaos", *arguments]) == 2
    assert "Error" in capsys.readouterr().err
