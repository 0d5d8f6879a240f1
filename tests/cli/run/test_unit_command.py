"""`lbmux unit` prints units that systemd understands and that run this installation."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from lbmux.cli.main import run

PROGRAMS = ["mux", "agent", "edge", "balancing-edge", "manager"]
MOST_EXPOSURE = 5.0
COMPILES = "import sys, {module}; sys.exit('numba' in sys.modules)"


@pytest.mark.parametrize("program", PROGRAMS)
def test_unit_runs_the_program_and_waits_for_it_to_be_ready(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["unit", program]) == 0
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(capsys.readouterr().out)
    command, *arguments = unit["Service"]["ExecStart"].split()
    assert Path(command).name in ("lbmux", "pytest")
    assert arguments == (["edge", "--balance"] if program == "balancing-edge" else [program])
    assert "@" not in command
    assert unit["Service"]["Type"] == "notify"
    assert unit["Service"]["Restart"] == "always" and unit["Unit"]["StartLimitIntervalSec"] == "0"


def test_unit_of_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["unit", "router"]) == 2
    assert "router" in capsys.readouterr().err


@pytest.mark.parametrize("program", PROGRAMS)
def test_little_is_exposed(program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["unit", program]) == 0
    unit = tmp_path / f"lbmux-{program}.service"
    unit.write_text(capsys.readouterr().out)
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSURE * 10:.0f}", str(unit)]
    judged = subprocess.run(command, capture_output=True, text=True)
    assert judged.returncode == 0, judged.stdout


@pytest.mark.slow
@pytest.mark.parametrize("program", ["edge", "manager"])
def test_a_program_that_may_not_compile_does_not(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["unit", program]) == 0
    assert "MemoryDenyWriteExecute=yes" in capsys.readouterr().out
    code = COMPILES.format(module=f"lbmux.daemons.{program}_daemon")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(("place", "warns"), [("/root/.venv/bin/lbmux", True), ("/opt/lbmux/bin/lbmux", False)])
def test_an_installation_that_the_unit_hides(
    place: str, warns: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: place)
    assert run(["unit", "mux"]) == 0
    assert ("install it elsewhere" in capsys.readouterr().err) == warns
