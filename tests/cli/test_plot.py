"""Plots of results as the bench and the scoreboard write them."""

import json
from pathlib import Path
from typing import Any

import pytest

from lbmux.cli.main import run

PNG, SVG = b"\x89PNG\r\n\x1a\n", b"<?xml"


def result(part: str, name: str, value: float, ratio: float | None = None) -> dict[str, Any]:
    return {"part": part, "name": name, "value": value, "ratio": ratio, "against": "an empty loop"}


CURVES = [result(f"kernel-{kind}", name, 4.0) for kind, name in (("flows", "1,000"), ("size", "64"))]
OUTCOMES = [
    {"scenario": scenario, "event": event, "connections": 500, "broken": 3, "stall_ms": 12.5}
    for scenario in ("ananta", "seesaw") for event in ("nothing", "kill-mux")
]  # fmt: skip


@pytest.mark.parametrize("ending", [".png", ".svg"])
@pytest.mark.parametrize(
    "said",
    [{"results": CURVES}, {"results": [result("live", "mux", 423.0, 0.94)]}, {"outcomes": OUTCOMES}],
    ids=["kernel", "ratios", "scoreboard"],
)
def test_a_picture_of_each_kind(tmp_path: Path, said: Any, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    source, picture = tmp_path / "r.json", tmp_path / f"r{ending}"
    source.write_text(json.dumps(said))
    assert run(["plot", str(source), "-o", str(picture)]) == 0
    assert picture.read_bytes().startswith(PNG if ending == ".png" else SVG)
    assert capsys.readouterr().out == f"{picture}\n"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"results": []}', '{"outcomes": []}'])
def test_what_is_no_result_is_said(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "r.json"
    source.write_text(text)
    assert run(["plot", str(source)]) == 1
    assert str(source) in capsys.readouterr().err and not (tmp_path / "r.png").exists()


def test_another_format_is_wrong_usage(tmp_path: Path) -> None:
    source = tmp_path / "r.json"
    source.write_text("{}")
    assert run(["plot", str(source), "-o", str(tmp_path / "r.gif")]) == 2
