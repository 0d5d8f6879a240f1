"""Programs with a wall clock, a disk or clocks since boot of their own."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lbmux.lab import altered_program
from lbmux.lab.altered_program import NO_OFFSET, faked, mount_disk, step, unmount_below

READ = "import time; print(time.time(), time.monotonic())"
WAITS = """
import select, sys, threading, time

def spin():
    while time.monotonic() < end:
        pass

sys.setswitchinterval(0.5)
end = time.monotonic() + 2
threading.Thread(target=spin).start()
begun = time.monotonic()
select.select([], [], [], 0.01)
print(time.monotonic() - begun)
"""


def clocks(**options: object) -> tuple[float, float]:
    """(wall clock, monotonic clock) of another process."""
    out = subprocess.check_output([sys.executable, "-c", READ], text=True, **options)  # type: ignore[call-overload]
    wall, monotonic = map(float, out.split())
    return wall, monotonic


def test_a_stepped_wall_clock_is_that_of_the_process_alone(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    step(clock, -7200)
    before, (wall, monotonic) = time.time(), clocks(env={**os.environ, **faked(clock)})
    assert -7210 < wall - before < -7190
    assert time.time() - before < 60 and abs(monotonic - time.monotonic()) < 60


def test_a_thread_that_wants_the_interpreter_waits_for_it(tmp_path: Path) -> None:
    environment = {**os.environ, **faked(tmp_path / "clock")}
    step(tmp_path / "clock", 0)
    waited = subprocess.check_output([sys.executable, "-c", WAITS], env=environment, text=True)
    assert float(waited) > 0.4  # else it asks for it all the time, and slows down whatever has it


def test_without_the_library_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(altered_program, "LIBRARY", None)
    with pytest.raises(Exception, match="apt install libfaketime"):
        faked(tmp_path)


@pytest.mark.root
def test_clocks_since_boot_differ_in_another_time_namespace() -> None:
    wall, monotonic = clocks(preexec_fn=lambda: altered_program.enter_time_namespace(86400))
    assert 86300 < monotonic - time.monotonic() < 86500 and abs(wall - time.time()) < 60


@pytest.mark.root
def test_a_disk_is_small_is_mounted_once_and_goes_with_its_lab(tmp_path: Path) -> None:
    disk = tmp_path / "mux1"
    try:
        mount_disk(disk)
        (disk / "kept").write_text("1")
        mount_disk(disk)
        assert (disk / "kept").read_text() == "1"
        with pytest.raises(OSError, match="No space left"):
            (disk / "full").write_bytes(bytes(2 * altered_program.DISK_BYTES))
    finally:
        unmount_below(tmp_path)
    assert not os.path.ismount(disk) and list(disk.iterdir()) == []


@pytest.mark.root
def test_it_runs_lbmux_with_all_of_them(tmp_path: Path) -> None:
    options = ["--clock", str(tmp_path / "clock"), "--disk", str(tmp_path / "mux1"), "--boot-offset", "100"]
    command = [sys.executable, "-m", "lbmux.lab.altered_program", *options, "config", "schema"]
    try:
        assert "services" in subprocess.check_output(command, text=True)
        assert os.readlink(tmp_path / "mux1.sock") == str(tmp_path / "mux1" / "mux.sock")
        assert (tmp_path / "clock").read_text() == NO_OFFSET
    finally:
        unmount_below(tmp_path)
