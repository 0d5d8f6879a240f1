"""The manual pages in the tree are up to date with the commands, and mandoc finds no fault in them."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from lbmux.cli.main import COMMANDS, run
from lbmux.cli.man import EXAMPLE, PAGES, pages
from lbmux.config.models import Config

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", PAGES)
def test_the_page_in_the_tree_is_up_to_date(name: str) -> None:
    assert (ROOT / "man" / name).read_text() == pages()[name], "make it again: lbmux man -w man"


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_mandoc_finds_nothing_wrong(name: str) -> None:
    ran = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", str(ROOT / "man" / name)], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "")


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_every_command_and_every_field_has_its_place() -> None:
    read = {name: subprocess.check_output(["mandoc", "-T", "ascii", "-O", "width=200", str(ROOT / "man" / name)])
            for name in PAGES}  # fmt: skip
    plain = {name: subprocess.check_output(["col", "-bx"], input=text).decode() for name, text in read.items()}
    assert all(f"lbmux {command}" in plain["lbmux.8"] for command in COMMANDS)
    assert "\n     s  sort by the next column     r  reverse " in plain["lbmux.8"], "a table of keys keeps its lines"
    assert "LBMUX_INTERFACE" in plain["lbmux.8"] and "EXIT STATUS" in plain["lbmux.8"]
    assert all(f"\n     {field} (" in plain["lbmux.yaml.5"] for field in Config.model_fields)


def test_the_example_is_usable() -> None:
    config = Config.model_validate(yaml.safe_load(EXAMPLE))
    assert [backend.port for backend in config.services[0].backends] == [80, 8080]


def test_variables_are_listed_with_the_options_that_they_stand_for() -> None:
    environment = pages()["lbmux.8"].partition(".Sh ENVIRONMENT")[2].partition(".Sh EXIT STATUS")[0]
    assert ".It Ev LBMUX_LOG_FORMAT\nlbmux \\-\\-log-format\n" in environment
    mux = environment.partition(".It Ev LBMUX_CONTROL\n")[2].partition(".It")[0]
    assert "lbmux mux \\-\\-control" in mux and "lbmux show flows \\-\\-control" in mux


def test_the_command_writes_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["man", "-w", str(tmp_path / "new")]) == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(PAGES)
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "new" / name) for name in PAGES]


@pytest.mark.parametrize(("words", "page"), [((), "lbmux.8"), (("lbmux.yaml",), "lbmux.yaml.5")])
def test_a_page_is_shown_and_nothing_is_written(
    words: tuple[str, ...], page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(["man", *words]) == 0
    assert capsys.readouterr().out == pages()[page]
    assert list(tmp_path.iterdir()) == []


def test_another_page_is_wrong_usage_and_makes_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["man", "man"]) == 2
    assert list(tmp_path.iterdir()) == []
