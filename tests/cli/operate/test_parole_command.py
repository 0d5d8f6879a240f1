"""`lbmux parole`: what it asks for, prints and completes."""

import json
from pathlib import Path

import click
import pytest

from lbmux.api.answers import BlackHole, Overload, Paroled
from lbmux.api.requests import Parole
from lbmux.cli.main import run
from lbmux.cli.operate import completion_names
from lbmux.cli.operate.parole_command import command
from tests.api.answering import answering

VIP = "192.0.2.1"


def test_the_vip_reaches_the_mux(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = list[str]()

    async def parole(request: Parole) -> Paroled:
        asked.append(request.vip)
        return Paroled(1, request.vip)

    with answering(tmp_path / "mux.sock", {Parole: parole}):
        control = ("--control", str(tmp_path / "mux.sock"))
        assert run(["parole", VIP, *control]) == 0
        assert capsys.readouterr().out == f"VIP {VIP} is back\n"
        assert run(["parole", VIP, "-j", *control]) == 0
        assert json.loads(capsys.readouterr().out) == {"version": 1, "vip": VIP}
    assert asked == [VIP, VIP]


def test_a_shell_completes_black_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def __init__(self, *_: object) -> None:
            self.overload = Overload(
                1.0, "", 1, black_holes={VIP: BlackHole(1, 2, 0, 3), "192.0.2.9": BlackHole(1, 2, 0, 3)}
            )

        def ask(self, _: object) -> "Client":
            return self

    monkeypatch.setattr("lbmux.api.control_client.ControlClient", Client)
    with click.Context(command) as context:
        assert completion_names.black_holes(context, command.params[0], "192.0.2.1") == [VIP]
