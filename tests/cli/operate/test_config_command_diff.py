import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbmux.api.answers import Backends
from lbmux.api.requests import GetBackends, GetConfig
from lbmux.cli.main import run
from lbmux.config.loader import load
from tests.api.answering import answering, said
from tests.api.lines import backend_line

FILE = """
services:
  - {name: web, vip: 192.0.2.1, protocol: tcp, port: 80, backends: [{name: a, dip: 10.0.2.1}, {name: b, dip: 10.0.2.2}]}
"""


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    for name, text in {"current": FILE, "new": FILE.replace("b, dip: 10.0.2.2", "c, dip: 10.0.2.3")}.items():
        (tmp_path / name).write_text(text)
    return [str(tmp_path / "new"), "-c", str(tmp_path / "current")]


def test_prints_changes_as_text(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "diff", *files]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("service web: changed: ") and first.endswith("% of its slots move")
    assert others == ["  backend c: added", "  backend b: removed"]


def test_as_json(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "diff", "-j", *files]) == 0
    (change,) = json.loads(capsys.readouterr().out)["services"]
    assert 0.5 <= change.pop("slots_moved") < 0.8
    assert change == {"service": "web", "change": "changed", "added": ["c"], "removed": ["b"], "changed": []}


def test_the_same_file(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "diff", files[2], "-c", files[2]]) == 0
    assert capsys.readouterr().out == "no differences\n"


@pytest.fixture
def mux(files: list[str], tmp_path: Path) -> Iterator[Path]:
    """A stand-in for a mux with the current file and some flows."""

    lines = [backend_line(backend=name, live_flows=flows) for name, flows in {"a": 30, "b": 10}.items()]
    config = load(Path(files[2])).model_dump_json()
    path = tmp_path / "mux.sock"
    with answering(path, {GetConfig: said(config), GetBackends: said(Backends(1, "mux", lines))}):
        yield path


def test_compares_with_the_running_mux(files: list[str], mux: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "diff", files[0], "--control", str(mux)]) == 0
    moved = "0 of 40 live flows move (0.0%); 10 remain with removed backends"
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  backend c: added", "  backend b: removed", f"  {moved}", moved
    ]  # fmt: skip


def test_against_the_mux_as_json(files: list[str], mux: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "diff", "-j", files[0], "--control", str(mux)]) == 0
    counts = {"all": 40, "move": 0, "remain": 10}
    assert json.loads(capsys.readouterr().out)["live_flows"] == {**counts, "services": {"web": counts}}


def test_the_file_before_by_environment(
    files: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LBMUX_CONFIG", files[2])
    assert run(["config", "diff", files[0]]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["  backend c: added", "  backend b: removed"]


def test_without_a_running_daemon_it_says_so(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "diff", files[0], "--control", "/nowhere/mux.sock"]) == 1
    assert "/nowhere/mux.sock: nothing listens there" in capsys.readouterr().err
