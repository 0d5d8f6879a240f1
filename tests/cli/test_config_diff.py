import json
from pathlib import Path

import pytest

from lbmux.cli.main import run

FILE = """
services:
  - {name: web, vip: 192.0.2.1, protocol: tcp, port: 80, backends: [{name: a, dip: 10.0.2.1}, {name: b, dip: 10.0.2.2}]}
"""


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    for name, text in {"current": FILE, "new": FILE.replace("b, dip", "c, dip")}.items():
        (tmp_path / name).write_text(text)
    return [str(tmp_path / "new"), "-c", str(tmp_path / "current")]


def test_in_words(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "diff", *files]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("service web: changed: ") and first.endswith("% of its slots move")
    assert others == ["  backend c: added", "  backend b: removed"]


def test_as_json(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "diff", "-j", *files]) == 0
    (found,) = json.loads(capsys.readouterr().out)["services"]
    assert 0.5 <= found.pop("slots_moved") < 0.8
    assert found == {"service": "web", "change": "changed", "added": ["c"], "removed": ["b"], "changed": []}


def test_the_same_file(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "diff", files[2], "-c", files[2]]) == 0
    assert capsys.readouterr().out == "no service differs\n"
