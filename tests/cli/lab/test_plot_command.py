"""Plots of results as the bench and the scoreboard write them."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from lbmux.cli.main import run

PNG, SVG = b"\x89PNG\r\n\x1a\n", b"<?xml"


def result(part: str, name: str, value: float, ratio: float | None = None) -> dict[str, Any]:
    return {"part": part, "name": name, "value": value, "ratio": ratio, "against": "an empty loop"}


CURVES = [result(f"kernel-{kind}", name, 4.0) for kind, name in (("flows", "1,000"), ("size", "64"))]
VALUES = [
    result("gslb", name, value) | {"unit": unit} for name, value, unit in (("TTL 5", 2.9, "s"), ("moved", 7, "users"))
]
OUTCOMES = [
    {"scenario": scenario, "event": event, "connections": 500, "broken": 3, "stall_ms": 12.5}
    for scenario in ("ananta", "seesaw") for event in ("nothing", "kill-mux")
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".png", ".svg"])
@pytest.mark.parametrize(
    "said",
    [
        {"results": CURVES},
        {"results": [result("live", "mux", 423.0, 0.94)]},
        {"results": VALUES},
        {"outcomes": OUTCOMES},
    ],
    ids=["kernel", "ratios", "values", "scoreboard"],
)
def test_a_plot_of_each_kind(tmp_path: Path, said: Any, ending: str, capsys: pytest.CaptureFixture[str]) -> None:
    source, picture = tmp_path / "r.json", tmp_path / f"r{ending}"
    source.write_text(json.dumps(said))
    assert run(["plot", str(source), "-o", str(picture)]) == 0
    assert picture.read_bytes().startswith(PNG if ending == ".png" else SVG)
    assert capsys.readouterr().out == f"{picture}\n"


def outcome(scenario: str, event: str, broken: int = 0, own: int = 0) -> dict[str, Any]:
    counts = {"connections": 500, "broken": broken, "own": own, "new": 150, "refused": 0}
    return {"scenario": scenario, "event": event, "stall_ms": 12.5, "normal_ms": 7, "reasons": {}} | counts


def test_the_scoreboard_as_a_table_of_a_page(tmp_path: Path) -> None:
    said = [outcome("ananta", "nothing"), outcome("ananta", "kill-host", 240, 238), outcome("seesaw", "nothing")]
    source, table = tmp_path / "r.json", tmp_path / "r.md"
    source.write_text(json.dumps({"outcomes": said}))
    assert run(["plot", str(source), "-o", str(table)]) == 0
    assert table.read_text().splitlines() == [
        "| event | ananta | seesaw |",
        "| --- | --- | --- |",
        "| nothing | 0 / 12 / 0 / 7 | 0 / 12 / 0 / 7 |",
        "| kill-host | 240 (238) / 12 / 0 / 7 |  |",
    ]


def test_the_bench_has_no_table_of_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "r.json"
    source.write_text(json.dumps({"results": CURVES}))
    assert run(["plot", str(source), "-o", str(tmp_path / "r.md")]) == 1
    assert "lab run" in capsys.readouterr().err and not (tmp_path / "r.md").exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"results": []}', '{"outcomes": []}'])
def test_a_file_that_is_not_a_result_is_reported(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "r.json"
    source.write_text(text)
    assert run(["plot", str(source)]) == 1
    assert str(source) in capsys.readouterr().err and not (tmp_path / "r.png").exists()


WRONG_FILES = [
    b"\xd4\xc3\xb2\xa1\x02\x00\xff\xfe", b'{"results": 7}', b'{"outcomes": [1, 2]}', b'{"outcomes": {"a": 1}}', b"7",
    b"[" * 100_000,
]  # fmt: skip
"""A capture, lines of another kind, and brackets without end."""


@pytest.mark.parametrize("content", WRONG_FILES, ids=["binary", "number", "numbers", "object", "7", "brackets"])
def test_a_wrong_file_is_reported_in_one_line(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "r.json"
    source.write_bytes(content)
    for ending in ("png", "md"):
        assert run(["plot", str(source), "-o", str(tmp_path / f"r.{ending}")]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"lbmux: {source}: ") and "Traceback" not in line


def test_another_format_is_wrong_usage(tmp_path: Path) -> None:
    source = tmp_path / "r.json"
    source.write_text("{}")
    assert run(["plot", str(source), "-o", str(tmp_path / "r.gif")]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "said",
    [{"results": CURVES}, {"results": [result("live", "mux", 423.0, 0.94)]}, {"outcomes": OUTCOMES}],
    ids=["kernel", "ratios", "scoreboard"],
)
def test_several_runs_are_in_one_plot_by_their_names(tmp_path: Path, said: Any) -> None:
    sources = [tmp_path / f"{name}.json" for name in ("before", "after")]
    for source in sources:
        source.write_text(json.dumps(said))
    picture = tmp_path / "both.svg"
    assert run(["plot", *map(str, sources), "-o", str(picture)]) == 0
    # matplotlib draws text in an SVG as outlines; a comment with the text precedes each.
    assert all(name in picture.read_text() for name in ("before", "after"))


@pytest.mark.slow
def test_a_history_has_one_point_for_each_file_and_a_line_for_each_ratio(tmp_path: Path) -> None:
    sources = [tmp_path / f"0.{release}.0.json" for release in (1, 2)]
    for release, source in enumerate(sources):
        results = [result("live", "mux", 423.0, 0.9 + release / 100), result("memory", "1000 flows", 51.0, 1.0)]
        source.write_text(json.dumps({"results": results}))
    picture = tmp_path / "history.svg"
    assert run(["plot", "--history", *map(str, sources), "-o", str(picture)]) == 0
    drawn = picture.read_text()
    assert all(text in drawn for text in ("0.1.0", "0.2.0", "live", "memory", "mux / an empty loop"))


def test_a_history_is_of_the_bench_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "r.json"
    source.write_text(json.dumps({"outcomes": OUTCOMES}))
    assert run(["plot", "--history", str(source)]) == 1
    assert "--history needs results of the bench" in capsys.readouterr().err


def test_runs_of_one_file_name_go_by_their_paths(tmp_path: Path) -> None:
    sources = [tmp_path / name / "results.json" for name in ("old", "new")]
    for source in sources:
        source.parent.mkdir()
        source.write_text(json.dumps({"results": CURVES}))
    picture = tmp_path / "both.svg"
    assert run(["plot", *map(str, sources), "-o", str(picture)]) == 0
    assert all(str(source) in picture.read_text() for source in sources)


def test_several_runs_need_an_output_file(tmp_path: Path) -> None:
    assert run(["plot", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 2


def test_runs_of_two_kinds_do_not_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"results": CURVES}))
    (tmp_path / "b.json").write_text(json.dumps({"outcomes": OUTCOMES}))
    assert run(["plot", str(tmp_path / "a.json"), str(tmp_path / "b.json"), "-o", str(tmp_path / "c.png")]) == 1
    assert "b.json is from `lbmux lab run`" in capsys.readouterr().err


@pytest.mark.parametrize(
    "said",
    [{"results": [{"part": "x"}]}, {"outcomes": [{"event": "x"}]}, {"outcomes": [{"scenario": 1, "event": []}]}],
)  # fmt: skip
def test_lines_without_their_fields_are_reported(tmp_path: Path, said: Any, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "r.json"
    source.write_text(json.dumps(said | {"more": 1}))
    code = run(["plot", str(source)])
    assert (code, "not the format of" in capsys.readouterr().err) == (1, True)


def test_without_matplotlib_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "r.json"
    source.write_text(json.dumps({"results": CURVES}))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(["plot", str(source)]) == 1
    assert capsys.readouterr().err == "lbmux: matplotlib is not installed: pip install 'lbmux[plots]'\n"
