"""Agents and muxes of PoPs: what is collected, what muxes are told, and what happens if one does not answer."""

import asyncio
import csv
from dataclasses import replace
from pathlib import Path

import pytest

from lbmux.api.answers import Bgp, RoundTripLine, RoundTrips
from lbmux.api.control_server import ControlServer
from lbmux.api.requests import GetRoundTrips, HoldRoutes
from lbmux.config.steering_models import Steering
from lbmux.manager.api_models import OverridesAnswer
from lbmux.steering.steering_map import Routes, SteeringMap
from lbmux.tools import pop_nodes
from lbmux.tools.pop_nodes import PopNodes
from tests.api.answering import answering, said
from tests.manager.running import running_manager
from tests.steering.pool import steering

REPORT = RoundTrips(1, "agent", [RoundTripLine("198.51.100.0/24", 12.0, 11.0, 14.0, 60, 1000.0)])
MAP = SteeringMap("www.example.net", 30, {}, {}, "fra", routes={"fra": Routes(), "ams": Routes(prepend=3)})


class Asked:
    """What muxes got, and what is wrong."""

    def __init__(self) -> None:
        self.got, self.faults = list[HoldRoutes](), dict[str, str]()

    async def hold(self, request: HoldRoutes) -> Bgp:
        self.got.append(request)
        return Bgp(1, "bird", [], [], [], request.held)

    def said(self, subject: str, fault: str) -> None:
        self.faults[subject] = fault


def pops(latency: str = "latency.csv", **more: dict[str, list[str]]) -> Steering:
    return steering(pops=more, latency=latency)


def test_round_trips_of_agents_get_into_the_file(tmp_path: Path) -> None:
    asked = Asked()
    nodes, config = PopNodes(None, asked.said), pops(fra={"agents": ["a.sock", "gone.sock"]})
    with answering(tmp_path / "a.sock", {GetRoundTrips: said(REPORT)}):
        asyncio.run(nodes.collect(config, tmp_path))
        rows = list(csv.DictReader((tmp_path / "latency.csv").open()))
        assert [(row["prefix"], row["pop"], row["samples"]) for row in rows] == [("198.51.100.0/24", "fra", "60")]
        assert "its last round trips stay" in asked.faults[str(tmp_path / "gone.sock")]
        (tmp_path / "latency.csv").unlink()
        asyncio.run(nodes.collect(config, tmp_path))  # before collect_s
    assert not (tmp_path / "latency.csv").exists()


def test_without_reports_the_file_stays(tmp_path: Path) -> None:
    with answering(tmp_path / "a.sock", {GetRoundTrips: said(RoundTrips(1, "agent", []))}):
        asyncio.run(PopNodes(None, Asked().said).collect(pops(fra={"agents": ["a.sock"]}), tmp_path))
    assert not (tmp_path / "latency.csv").exists()


def test_muxes_follow_each_change_of_the_map_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked()
    nodes, config = PopNodes(None, asked.said), pops(fra={"muxes": ["m.sock"]}, ams={"muxes": ["m.sock"]})
    with answering(tmp_path / "m.sock", {HoldRoutes: asked.hold}):
        for _ in range(2):
            asyncio.run(nodes.announce(config, MAP, tmp_path))
        assert asked.got == [HoldRoutes(False), HoldRoutes(False, 3)]
        changed = replace(MAP, routes=MAP.routes | {"fra": Routes(withdrawn=True)})
        asyncio.run(nodes.announce(config, changed, tmp_path))
        assert asked.got[2:] == [HoldRoutes(True)]
        monkeypatch.setattr(pop_nodes, "REPEAT_S", -1.0)
        asyncio.run(nodes.announce(config, changed, tmp_path))
    assert asked.got[3:] == [HoldRoutes(True), HoldRoutes(False, 3)]


def test_a_mux_that_does_not_answer_is_named(tmp_path: Path) -> None:
    asked = Asked()
    asyncio.run(PopNodes(None, asked.said).announce(pops(fra={"muxes": ["m.sock"]}), MAP, tmp_path))
    assert "its routes stay" in asked.faults[str(tmp_path / "m.sock")]


def test_patterns_name_nodes_of_the_pool_whose_routes_the_manager_stores(tmp_path: Path) -> None:
    asked, config = Asked(), pops(ams={"muxes": ["ams-*"]}, fra={"muxes": ["fra-*"]})
    server = ControlServer(tmp_path / "m.sock", {})
    with running_manager(tmp_path / "manager") as manager, manager.joined("ams-mux1", "mux", server.answers):
        nodes = PopNodes(manager.client(), asked.said)
        asyncio.run(nodes.announce(config, MAP, tmp_path))
        (route,) = manager.client().get("/v1/overrides", OverridesAnswer).routes
        assert (route.node, route.announcement.prepended, route.reason) == ("ams-mux1", 3, "steer run")
        changed = replace(MAP, routes={"ams": Routes(withdrawn=True)})
        asyncio.run(nodes.announce(config, changed, tmp_path))
        (route,) = manager.client().get("/v1/overrides", OverridesAnswer).routes
        assert route.announcement.held
    assert {*asked.faults.values()} == {""}
    asyncio.run(PopNodes(manager.client(), asked.said).announce(config, MAP, tmp_path))
    assert "routes and round trips stay" in asked.faults["nodes"]
    asyncio.run(PopNodes(None, asked.said).announce(config, MAP, tmp_path))
    assert "only with --manager" in asked.faults["nodes"]
