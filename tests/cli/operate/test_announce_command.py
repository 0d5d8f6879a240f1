"""`lbmux withdraw|announce` and `lbmux detach`: what they print."""

import json
from pathlib import Path

import pytest

from lbmux.api.answers import Bgp
from lbmux.api.requests import HoldRoutes
from lbmux.cli.main import run
from lbmux.frames import xdp
from tests.api.answering import answering


@pytest.mark.parametrize(("verb", "held"), [("withdraw", True), ("announce", False)])
def test_json_of_withdraw_and_announce(
    verb: str, held: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefixes = [] if held else ["192.0.2.1/32"]

    async def hold(request: HoldRoutes) -> Bgp:
        return Bgp(1, "bird", [] if request.held else prefixes, [], [], request.held)

    with answering(tmp_path / "mux.sock", {HoldRoutes: hold}):
        assert run([verb, "-j", "--control", str(tmp_path / "mux.sock")]) == 0
        assert json.loads(capsys.readouterr().out) == {"version": 1, "held": held, "prefixes": prefixes}
        assert run([verb, "--control", str(tmp_path / "mux.sock")]) == 0
        assert capsys.readouterr().out == f"announced: {' '.join(prefixes) or 'nothing'}\n"


def test_options_of_announce_reach_the_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    got = list[HoldRoutes]()

    async def hold(request: HoldRoutes) -> Bgp:
        got.append(request)
        return Bgp(1, "bird", ["192.0.2.0/24"], [], [], request.held, request.prepended)

    with answering(tmp_path / "mux.sock", {HoldRoutes: hold}):
        options = ("--prepend", "2", "--length", "24", "--length6", "48")
        assert run(["announce", *options, "--control", str(tmp_path / "mux.sock")]) == 0
    assert got == [HoldRoutes(False, 2, 24, 48)] and capsys.readouterr().out == "announced: 192.0.2.0/24\n"
    assert run(["announce", "--prepend", "11"]) == 2


@pytest.mark.parametrize("there", [True, False])
def test_json_of_what_was_detached(
    there: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(xdp, "detach", lambda interface: there)
    assert run(["detach", "-i", "eth9", "-j"]) == 0
    assert json.loads(capsys.readouterr().out) == {"version": 1, "interface": "eth9", "detached": there}
