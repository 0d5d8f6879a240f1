"""The command itself: quick help, exit codes, one line for an error."""

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from lbmux import __version__
from lbmux.cli import main
from lbmux.daemons import process
from lbmux.errors import SetupError

HEAVY = {"numpy", "numba", "pydantic", "scapy", "mmh3", "pyroute2", "aiohttp", "asyncio", "yaml", "rich"}


@pytest.fixture
def doing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Put an action in the place of every subcommand."""

    def put(action: Callable[[], object]) -> None:
        stand_in = click.Command("stand-in", callback=action)
        monkeypatch.setattr(main.LazyGroup, "get_command", lambda *_: stand_in)

    return put


@pytest.fixture
def as_before() -> Iterator[None]:
    """The collector's thresholds are put back."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = "import sys\nfrom lbmux.cli.main import run\nrun(['--help'])\nprint(*sys.modules, file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert all(f"  {name} " in ran.stdout for name in main.COMMANDS)
    assert not HEAVY & set(ran.stderr.split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["nope"], ["--nope"], ["config", "check"], ["reload", "--nope"]])
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(arguments) == 2
    assert "Usage: lbmux" in capsys.readouterr().err


def test_an_error_is_one_line_and_1(
    doing: Callable[[Callable[[], object]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise SetupError("interface eth9", "there is none", "`ip link` lists them")

    doing(fail)
    assert main.run(["mux"]) == 1
    assert capsys.readouterr() == ("", "lbmux: interface eth9: there is none (`ip link` lists them)\n")


def test_an_interrupted_command_is_130_without_traceback(
    doing: Callable[[Callable[[], object]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    doing(interrupt)
    assert main.run(["mux"]) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3)])
def test_a_command_may_name_its_exit_code(
    doing: Callable[[Callable[[], object]], None], returned: int | None, code: int
) -> None:
    doing(lambda: returned)
    assert main.run(["mux"]) == code


@pytest.mark.parametrize("name", main.COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([name, "--help"]) == 0
    assert f"Usage: lbmux {name}" in capsys.readouterr().out


@pytest.mark.parametrize("program", ["mux", "agent"])
@pytest.mark.parametrize("given", ["99999", "localhost:70000", "localhost:"])
def test_an_invalid_metrics_port_is_a_usage_error(program: str, given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([program, "-c", "x.yaml", "-i", "eth0", "--metrics", given]) == 2
    assert f"{given!r} is not [HOST:]PORT, with a port of 0 to 65535" in capsys.readouterr().err


@pytest.mark.parametrize("program", ["mux", "agent", "edge"])
@pytest.mark.parametrize(
    ("words", "variables", "status", "said"),
    [
        ([], {}, 2, "give either a file with -c or the managers with --manager"),
        (["-c", "no.yaml", "--manager", "https://m1"], {}, 2, "give either a file"),
        (["-c", "no.yaml"], {"LBMUX_MANAGER": "https://m1"}, 1, "no.yaml: cannot be read"),
        (["--manager", "https://m1"], {"LBMUX_CONFIG": "no.yaml"}, 1, "node.pem: No such file"),
        (["--manager", "https://m1"], {}, 1, "run `lbmux manager init`, or `lbmux join`"),
    ],
)
def test_a_daemon_has_a_file_or_managers(
    program: str, words: list[str], variables: dict[str, str], status: int, said: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """What the command line says takes precedence over the other kind's variable."""
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    peer = ["--bgp-peer", "192.0.2.1:64512"] if program == "edge" else []
    assert main.run([program, "-i", "lo", *peer, "--state", str(tmp_path), *words]) == status
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("as_before")
def test_imports_start_hardly_a_collection_and_a_running_daemon_frequent_short_ones(
    doing: Callable[[Callable[[], object]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = list[int]()
    doing(lambda: seen.append(gc.get_threshold()[0]))
    gc.unfreeze()
    with pytest.raises(SystemExit):
        main.main(["mux"])
    assert seen == [main.NEW_OBJECTS] and main.NEW_OBJECTS >= 100_000
    assert gc.get_freeze_count(), "the last collection of the interpreter would walk everything"
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    process.ready()
    assert gc.get_threshold() == process.FREQUENT
