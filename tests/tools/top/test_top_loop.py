"""`lbmux top` on a terminal with a recording."""

import json
import os
import subprocess
import threading
from pathlib import Path

import pytest

from lbmux.cli.main import run
from lbmux.tools.top.screen import keys
from lbmux.tools.top.top_loop import replayed
from lbmux.tools.top.view import View
from tests.tools.top.terminal import TOP, Terminal
from tests.tools.top.test_view import reading


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "r.jsonl"
    path.write_text("".join(f"{reading(10.0 + n, 1000 * n, 2000 * n, 30 * n, flows=2).line()}\n" for n in range(3)))
    return path


def test_drilling_down_on_a_terminal(recording: Path) -> None:
    terminal = Terminal([*TOP, "-r", str(recording), "--interval", "0.1"])
    try:
        terminal.shows("services", "dns", "web", "denied 30", "PAUSED", "quit")  # the recording has ended
        terminal.press("\x1b[B\r")
        terminal.shows("services › web", "h1", "h2", "down")
        terminal.press("\r")
        terminal.shows("web › h1", "198.51.100.2")
        terminal.press("\x7f\x7f")
        terminal.shows("192.0.2.1 udp/53")
        terminal.press("q")
        assert terminal.process.wait(20) == 0
    finally:
        terminal.close()


def test_once_is_a_table(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["top", "-r", str(recording), "--once"]) == 0
    said = capsys.readouterr().out
    assert "dns" in said and "drops/s: denied 30" in said


def test_once_as_json(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["top", "-r", str(recording), "--once", "-j"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [(row["service"], row["packets_s"]) for row in said["services"]] == [("dns", 2000), ("web", 1000)]
    assert said["drops"] == {"denied": 30} and said["time"] == 11.0
    assert said["drops_by_mux"] == {"denied": {"mux1": 30}}


NO_READING = json.dumps({"version": 1, "time": 1.0, "muxes": {"a": {
    "services": [1], "backends": [], "verdicts": [], "flows": []}}, "muted": {}}).encode()  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xd4\xc3\xb2\xa1\x02\x00\xff\xfe", "not a recording of `lbmux top`: it is not text"),
        (b"[" * 100_000, "not a reading of `lbmux top`"),
        (NO_READING, "not a reading of `lbmux top`"),
    ],
    ids=["binary", "brackets", "wrong fields"],
)
def test_a_file_that_is_not_a_recording_is_reported_in_one_line(
    tmp_path: Path, content: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(content)
    assert run(["top", "-r", str(path), "--once"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lbmux: {path}") and said in line


def test_json_is_a_line_a_reading(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["top", "-r", str(recording), "-j", "--interval", "0.1"]) == 0
    assert [json.loads(line)["time"] for line in capsys.readouterr().out.splitlines()] == [11.0, 12.0]


def test_once_of_a_single_reading_has_no_rates_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(reading(10.0, 1000, 2000).line())
    assert run(["top", "-r", str(path), "--once", "-j"]) == 0
    assert [row["packets_s"] for row in json.loads(capsys.readouterr().out)["services"]] == [0, 0]


def test_a_pause_holds_a_recording(recording: Path) -> None:
    source, view = replayed(recording), View()
    view.take(source(view) or reading(0.0, 0, 0))
    view.press("p")
    assert source(view) is source(view) is view.after
    view.press("p")
    later = source(view)
    assert later is not None and later.time == 11.0


def test_an_arrow_key_in_several_reads_is_one_key() -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"s\x1b")
    threading.Timer(0.05, os.write, (theirs, b"[B")).start()
    assert list(keys(ours, 1.0)) == ["s", "down"]
    os.close(theirs)
    assert list(keys(ours, 1.0)) == ["q"]
    os.close(ours)


def test_without_a_terminal_it_says_what_to_do() -> None:
    command = [*TOP, "-r", os.devnull]
    ran = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert (ran.returncode, ran.stderr) == (1, "lbmux: top needs a terminal; without one, use --once or --json\n")
