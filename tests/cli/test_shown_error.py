"""An error of a command: text on standard error, and with -j a JSON object on standard output."""

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from lbmux.cli import main, options

VERBS = [
    "reload", "drain h1", "disable h1", "enable h1", "weight h1 5", "add web 10.1.1.2", "remove h1", "withdraw",
    "announce", "show services", "show flows", "show counters", "show bgp", "show health", "show runtime",
    "explain 192.0.2.9:1>192.0.2.1:80/tcp", "trace drop", "top --once", "parole 192.0.2.1",
]  # fmt: skip


def every(group: click.Group, context: click.Context, *path: str) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from every(command, context, *path, name)
        elif command is not None:
            yield " ".join((*path, name)), command


@pytest.mark.parametrize("words", VERBS)
def test_an_unreachable_socket_is_an_object_with_the_error(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    control = tmp_path / "mux.sock"
    assert main.run([*words.split(), "-j", "--control", str(control)]) == 1
    out, err = capsys.readouterr()
    reason = "nothing listens there; is `lbmux mux` running?"
    assert json.loads(out) == {"version": 1, "control": str(control), "error": reason}
    assert err == f"lbmux: {control}: {reason}\n"


@pytest.mark.parametrize("words", ["show revisions", "drain h1", "apply /dev/null", "config get"])
def test_an_unreachable_manager_is_an_object_with_the_error(
    words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main.run([*words.split(), "-j", "--manager", "https://127.0.0.1:1"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["error"] and err.startswith("lbmux: ")


def test_without_json_standard_output_is_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["withdraw", "--control", str(tmp_path / "mux.sock")]) == 1
    assert capsys.readouterr().out == ""


def test_every_command_with_json_prints_its_errors_so() -> None:
    assert isinstance(main.group, click.Group)
    json_options = {
        name: option
        for name, command in every(main.group, click.Context(main.group))
        for option in command.params
        if option.name == "as_json"
    }
    assert len(json_options) > 40
    remember = next(option for option in json_options.values()).callback
    assert remember is not None and remember.__module__ == options.__name__
    assert [name for name, option in json_options.items() if option.callback is not remember] == []
