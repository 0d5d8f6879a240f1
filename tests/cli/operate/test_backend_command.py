"""The requests that commands about backends send to daemons, and their output."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lbmux.api import control_paths
from lbmux.api.answers import Overridden
from lbmux.api.protocol import to_plain
from lbmux.api.requests import AddBackend, Override, Request, SetWeight
from lbmux.backends.override_commands import OverrideError
from lbmux.cli.main import run
from tests.api.answering import answering
from tests.api.lines import backend_health

Asked = list[tuple[str, dict[str, Any]]]
HEALTH = to_plain([backend_health()])
ENDLESS = {"for_s": None, "deadline_s": None}


@contextlib.contextmanager
def listening(path: Path, asked: Asked, refuses: bool = False) -> Iterator[None]:
    """A daemon that only records its requests."""

    async def handle(request: Request[Overridden]) -> Overridden:
        if refuses:
            raise OverrideError("web", "not here")
        asked.append((request.command, vars(request)))
        return Overridden(1, "mux", [backend_health()])

    with answering(path, {Override: handle, SetWeight: handle, AddBackend: handle}):
        yield


@pytest.mark.parametrize(("words", "command", "arguments"), [
    ("drain h1", "override", {"backend": "h1", "override": "drain", "service": None, **ENDLESS}),
    ("drain h1 --for 2h --deadline 10m", "override",
     {"backend": "h1", "override": "drain", "service": None, "for_s": 7200.0, "deadline_s": 600.0}),
    ("enable h1 --service web", "override", {"backend": "h1", "override": None, "service": "web", **ENDLESS}),
    ("disable --service web", "override", {"backend": None, "override": "disable", "service": "web", **ENDLESS}),
    ("remove h1", "override", {"backend": "h1", "override": "remove", "service": None, **ENDLESS}),
    ("weight h1 7", "weight", {"backend": "h1", "weight": 7, "service": None}),
    ("weight h1", "weight", {"backend": "h1", "weight": None, "service": None}),
    ("add web 10.1.1.2", "add", {"service": "web", "backend": {"dip": "10.1.1.2"}}),
    ("add web 10.1.1.2:80 --name h1 --weight 0 --host 10.9.9.9 --tunnel gre --server-id 0a", "add",
     {"service": "web", "backend": {"dip": "10.1.1.2", "port": 80, "name": "h1", "weight": 0, "host": "10.9.9.9",
                                    "tunnel": "gre", "server_id": "0a"}}),
    ("add web [2001:db8::1]:80", "add", {"service": "web", "backend": {"dip": "2001:db8::1", "port": 80}}),
    ("add web 2001:db8::1", "add", {"service": "web", "backend": {"dip": "2001:db8::1"}}),
    ("add web nonsense:x", "add", {"service": "web", "backend": {"dip": "nonsense:x"}}),
])  # fmt: skip
def test_asks(
    words: str, command: str, arguments: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: Asked = []
    with listening(tmp_path / "mux.sock", asked):
        assert run([*words.split(), "--control", str(tmp_path / "mux.sock")]) == 0
    assert asked == [(command, arguments)]
    assert capsys.readouterr().out == "web/h1: up: fine\n"


VERBS = ["drain h1", "enable h1", "disable h1", "remove h1", "weight h1 7", "add web 10.1.1.2"]


@pytest.mark.parametrize("words", VERBS)
def test_json_is_a_line_a_daemon_also_of_one_that_refuses(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / name for name in ("agent.sock", "mux.sock")]
    controls = [word for path in paths for word in ("--control", str(path))]
    with listening(paths[0], [], refuses=True), listening(paths[1], []):
        assert run([*words.split(), *controls, "-j"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        {"version": 1, "control": str(paths[1]), "health": HEALTH},
        {"version": 1, "control": str(paths[0]), "error": "web: not here"},
    ]


def test_each_daemon_gets_the_command_after_one_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: Asked = []
    paths = [tmp_path / name for name in ("none.sock", "agent.sock", "mux.sock")]
    with listening(paths[1], asked, refuses=True), listening(paths[2], asked):
        assert run(["drain", "h1", *(word for path in paths for word in ("--control", str(path)))]) == 1
    out, err = capsys.readouterr()
    assert out == f"{paths[2]}: web/h1: up: fine\n" and len(asked) == 1
    assert sorted(err.splitlines()) == [
        f"lbmux: {paths[1]}: web: not here", f"lbmux: {paths[0]}: nothing listens there; is the daemon running?"
    ]  # fmt: skip


def test_without_a_socket_the_daemon_that_runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_paths, "default_path", lambda program: tmp_path / f"{program}.sock")
    asked: Asked = []
    with listening(tmp_path / "agent.sock", asked):
        assert run(["remove", "h1"]) == 0
    assert len(asked) == 1


def test_an_invalid_weight_is_wrong_usage() -> None:
    assert run(["weight", "h1", "70000"]) == 2


@pytest.mark.parametrize("words", ["disable", "remove --service web"])
def test_a_whole_service_is_named_and_never_removed(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words.split()) == 2
    assert "BACKEND" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["weight h1 7", "add web 10.1.1.2"])
def test_only_a_manager_ends_weights_and_additions(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words.split(), "--for", "2h"]) == 2
    assert "--for needs a manager here" in capsys.readouterr().err
