"""`lbmux unit` prints units that systemd understands and that run this installation."""

import configparser
from pathlib import Path

import pytest

from lbmux.cli.main import run


@pytest.mark.parametrize("program", ["mux", "agent", "manager"])
def test_unit_runs_the_program_and_waits_for_it_to_be_ready(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["unit", program]) == 0
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(capsys.readouterr().out)
    command, argument = unit["Service"]["ExecStart"].split()
    assert (Path(command).name in ("lbmux", "pytest"), argument) == (True, program)
    assert "@" not in command
    assert unit["Service"]["Type"] == "notify"
    assert unit["Service"]["Restart"] == "always" and unit["Unit"]["StartLimitIntervalSec"] == "0"


def test_unit_of_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["unit", "router"]) == 2
    assert "router" in capsys.readouterr().err
