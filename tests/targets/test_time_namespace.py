"""Times of kernel programs and of user space agree in a time namespace."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lbmux.targets.regions import now_ticks
from lbmux.targets.time_namespace import monotonic_offset_ns

CLONE_NEWTIME = 0x80
OFFSET_S = 100 * 86400
LATE_TICKS = 60_000


@pytest.mark.parametrize(
    ("text", "offset_ns"),
    [
        ("monotonic           0         0\nboottime            0         0\n", 0),
        ("monotonic     8640000      7000\nboottime            0         0\n", 8_640_000_000_007_000),
        ("monotonic          -2 500000000\nboottime           -2 500000000\n", -1_500_000_000),
    ],
)
def test_the_offset_is_that_of_the_monotonic_clock(tmp_path: Path, text: str, offset_ns: int) -> None:
    (tmp_path / "offsets").write_text(text)
    assert monotonic_offset_ns(tmp_path / "offsets") == offset_ns


def test_there_is_none_without_time_namespaces(tmp_path: Path) -> None:
    assert monotonic_offset_ns(tmp_path / "missing") == 0


def enter() -> None:
    """Run in the child before it becomes another program, which is in the new namespace."""
    library = ctypes.CDLL(None, use_errno=True)
    assert library.unshare(CLONE_NEWTIME) == 0
    Path("/proc/self/timens_offsets").write_text(f"monotonic {OFFSET_S} 0\nboottime {OFFSET_S} 0\n")
    assert library.setns(os.open("/proc/self/ns/time_for_children", os.O_RDONLY), CLONE_NEWTIME) == 0


@pytest.mark.root
def test_ticks_are_the_same_in_another_time_namespace() -> None:
    code = "import time; from lbmux.targets.regions import now_ticks; print(now_ticks(), time.monotonic())"
    before = now_ticks()
    ran = subprocess.run([sys.executable, "-c", code], preexec_fn=enter, stdout=subprocess.PIPE, text=True, check=True)
    ticks, monotonic_s = ran.stdout.split()
    assert float(monotonic_s) > OFFSET_S, "the program was in the namespace"
    assert (int(ticks) - before) % (1 << 32) < LATE_TICKS
