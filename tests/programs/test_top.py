"""`lbmux top` and a running mux."""

import json
from pathlib import Path

import pytest

from lbmux.cli.main import run
from lbmux.lab.lab import Lab
from lbmux.tools.top.readings import Reading, recorded

from .daemons import configuration, running, service


@pytest.mark.root
def test_once_on_a_running_mux(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab.write_config(configuration(service("web", 80, [{"name": "h1", "dip": "10.1.1.2"}])))
    record = tmp_path / "r.jsonl"
    with running(lab, "mux1", "mux") as mux:
        options = ["--control", str(mux.control), "--once", "-j", "--interval", "0.1", "-w", str(record)]
        assert run(["top", *options]) == 0
        asked = Reading.of([mux.control, tmp_path / "gone.sock"], "service web and backend h1")
    said = json.loads(capsys.readouterr().out)
    assert [(row["service"], row["up"], row["packets_s"]) for row in said["services"]] == [("web", "1/1", 0)]
    assert len(list(recorded(record))) == 2
    (counts,) = asked.muxes.values()
    assert counts.flows == [] and [row["backend"] for row in counts.backends] == ["h1"]
    assert list(asked.muted) == ["gone"] and "is the daemon running?" in asked.muted["gone"]


def test_nobody_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["top", "--control", str(tmp_path / "none.sock"), "--once"]) == 1
    assert "is the daemon running?" in capsys.readouterr().err
