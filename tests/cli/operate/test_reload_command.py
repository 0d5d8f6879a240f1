"""`lbmux reload`, against a control socket."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from lbmux.api.answers import Reloaded
from lbmux.api.control_server import ControlServer
from lbmux.api.requests import Reload
from lbmux.cli.main import run
from lbmux.errors import ConfigError, Problem


def reload(path: Path, handler: Callable[[Reload], Awaitable[object]], *options: str) -> int:
    async def both() -> int:
        async with ControlServer(path, {Reload: handler}):
            return await asyncio.to_thread(run, ["reload", "--control", str(path), *options])

    return asyncio.run(both())


def test_changes_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def handler(request: Reload) -> Reloaded:
        return Reloaded(["service web: backend h4 added", "maglev: changed"], [])

    path = tmp_path / "mux.sock"
    assert reload(path, handler) == 0
    assert capsys.readouterr().out == f"{path}: service web: backend h4 added\n{path}: maglev: changed\n"


def test_overrides_are_printed_even_without_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def handler(request: Reload) -> Reloaded:
        return Reloaded([], ["override: service web: backend h1: drained by command"])

    path = tmp_path / "mux.sock"
    assert reload(path, handler) == 0
    expected = f"{path}: nothing changed\n{path}: override: service web: backend h1: drained by command\n"
    assert capsys.readouterr().out == expected


def test_json_is_a_line_a_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def handler(request: Reload) -> Reloaded:
        return Reloaded(["maglev: changed"], ["x"])

    path = tmp_path / "mux.sock"
    assert reload(path, handler, "-j") == 0
    expected = {"version": 1, "control": str(path), "changes": ["maglev: changed"], "overrides": ["x"]}
    assert json.loads(capsys.readouterr().out) == expected


def test_no_change_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def handler(request: Reload) -> Reloaded:
        return Reloaded([], [])

    assert reload(tmp_path / "mux.sock", handler) == 0
    assert "nothing changed" in capsys.readouterr().out


def test_a_refusal_is_1_and_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def handler(request: Reload) -> None:
        raise ConfigError(Path("lbmux.yaml"), (Problem(3, "services[0].vip", "is no address"),))

    path = tmp_path / "mux.sock"
    assert reload(path, handler) == 1
    assert capsys.readouterr().err == (
        f"lbmux: {path}: the configuration is invalid\nlbmux: lbmux.yaml:3: services[0].vip: is no address\n"
    )


def test_no_daemon_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["reload", "--control", str(tmp_path / "none.sock")]) == 1
    assert "is the daemon running" in capsys.readouterr().err
