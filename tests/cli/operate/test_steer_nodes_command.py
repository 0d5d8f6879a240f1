"""`lbmux steer announce`: what it asks of a PoP's muxes; tests/daemons/test_round_trip_handler.py runs `collect`."""

from ipaddress import ip_network
from pathlib import Path

import pytest

from lbmux.api.answers import Bgp
from lbmux.api.control_server import ControlServer
from lbmux.api.requests import HoldRoutes
from lbmux.cli.main import run
from lbmux.steering.steering_map import SteeringMap, write
from tests.api.answering import answering
from tests.manager.running import running_manager
from tests.steering.steering_files import write_files

POPS = {"fra": ("192.0.2.1",), "ams": ("192.0.2.2",)}


@pytest.mark.parametrize(("pop", "held"), [("fra", False), ("ams", True)])
def test_muxes_withdraw_if_the_map_has_no_users_for_their_pop(
    pop: str, held: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    got = list[HoldRoutes]()

    async def hold(request: HoldRoutes) -> Bgp:
        got.append(request)
        return Bgp(1, "bird", [] if request.held else ["192.0.2.1/32"], [], [], request.held)

    path, controls = tmp_path / "map.json", [tmp_path / "mux1.sock", tmp_path / "mux2.sock"]
    write(path, SteeringMap("www.example.net", 30, POPS, {ip_network("198.51.100.0/24"): {"fra": 1.0}}, "fra"))
    with answering(controls[0], {HoldRoutes: hold}), answering(controls[1], {HoldRoutes: hold}):
        options = [text for control in controls for text in ("--control", str(control))]
        assert run(["steer", "announce", pop, str(path), *options]) == 0
    assert got == [HoldRoutes(held)] * 2
    assert capsys.readouterr().out.count("announced: nothing") == (2 if held else 0)


def test_a_pop_that_the_map_does_not_have_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "map.json"
    write(path, SteeringMap("www.example.net", 30, POPS, {}, "fra"))
    assert run(["steer", "announce", "lon", str(path), "--control", "mux.sock"]) == 2
    assert "has no PoP 'lon': use one of fra, ams" in capsys.readouterr().err


def test_without_a_file_muxes_follow_the_map_of_the_manager(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = ControlServer(tmp_path / "mux1.sock", {})
    with running_manager(tmp_path / "manager") as manager, manager.joined("mux1", "mux", server.answers):
        options = [*manager.options(), "--node", "mux1"]
        assert run(["steer", "announce", "ams", *options]) == 2
        assert "the manager has no map" in capsys.readouterr().err
        steering = str(write_files(tmp_path))
        assert run(["steer", "apply", "-c", steering, *manager.options()]) == 0
        capsys.readouterr()
        assert run(["steer", "announce", "ams", *options]) == 0
    assert capsys.readouterr().out == "all VIPs: withdrawn at mux1\n"


def test_without_a_file_and_a_manager_there_is_no_map(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["steer", "announce", "ams", "--control", "mux.sock"]) == 2
    assert "give MAP, or the manager" in capsys.readouterr().err
