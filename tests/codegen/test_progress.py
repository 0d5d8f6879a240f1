"""Progress is logged while code is compiled, and nothing is logged if the cache has it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lbmux.codegen.progress import IDLE_S, LONGEST_S, SAY_EVERY_S, Progress


def test_a_quick_step_is_not_reported() -> None:
    compilations = Progress()
    compilations.begin("pcap.scan", 10.0)
    assert compilations.line(10.9) is None
    compilations.end("pcap.scan", 10.9)
    assert compilations.line(10.9 + IDLE_S) is None and compilations.is_over(10.9 + IDLE_S)


def test_the_first_line_says_once_and_later_lines_the_progress() -> None:
    compilations = Progress()
    compilations.begin("pcap.scan", 10.0)
    assert compilations.line(11.0) == "compiling (once per version and machine): pcap.scan (0 functions done, 1 s)"
    compilations.end("pcap.scan", 12.0)
    compilations.begin("native.forward", 12.0)
    compilations.begin("mux_xdp for the kernel", 12.5)
    assert compilations.line(11.0 + SAY_EVERY_S - 0.1) is None
    message = compilations.line(11.0 + SAY_EVERY_S)
    assert message == "still compiling: native.forward, mux_xdp for the kernel (1 function done, 6 s)"


def test_the_last_line_follows_a_pause() -> None:
    compilations = Progress()
    compilations.begin("a", 10.0)
    assert compilations.line(11.0)
    compilations.end("a", 15.0)
    assert compilations.line(15.0 + IDLE_S / 2) is None
    compilations.begin("b", 15.0 + IDLE_S / 2)
    compilations.end("b", 17.0)
    assert compilations.line(17.0 + IDLE_S) == "compiled 2 functions in 7 s; later starts use the cache"
    assert compilations.line(18.0 + IDLE_S) is None
    compilations.begin("c", 60.0)
    assert compilations.line(61.0) == "compiling (once per version and machine): c (0 functions done, 1 s)"


def test_a_failed_compilation_is_forgotten() -> None:
    compilations = Progress()
    compilations.begin("a", 10.0)
    assert compilations.line(10.0 + LONGEST_S) is None and compilations.is_over(10.0 + LONGEST_S)


START = """
import logging, sys, time
from lbmux.codegen import progress
progress.SAY_AFTER_S, progress.IDLE_S = 0.01, 0.3
logging.basicConfig(level=logging.INFO, format="%(message)s")
if sys.argv[1] == "announced":
    progress.announce()
from lbmux.tables.maglev import build
build(["a", "b"], [1, 1], 7)
deadline = time.monotonic() + 20
while progress._reporter is not None and time.monotonic() < deadline:
    time.sleep(0.05)
"""


@pytest.mark.slow
def test_a_first_start_reports_progress_and_a_second_does_not(tmp_path: Path) -> None:
    def started(how: str, cache: Path) -> list[str]:
        environment = os.environ | {"LBMUX_CACHE": str(cache)}
        command = [sys.executable, "-c", START, how]
        ran = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=True)
        return ran.stderr.splitlines()

    first = started("announced", tmp_path / "one")
    assert first[0].startswith("compiling (once per version and machine): maglev.")
    assert first[-1].startswith("compiled ") and first[-1].endswith("; later starts use the cache")
    assert started("announced", tmp_path / "one") == []
    assert started("silent", tmp_path / "two") == []
