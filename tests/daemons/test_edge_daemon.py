"""Edges: hosts that announce a VIP themselves while their own service is healthy.  Real daemons, BIRD as the router."""

import asyncio
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from bench.loopback import at_loopback
from lbmux.cli.main import run
from lbmux.config.models import BackendKey, Config
from lbmux.daemons.drain_watch import POLL_S
from lbmux.daemons.edge_vips import served_vips, services_of_host
from lbmux.errors import ControlError
from lbmux.health.prober import Prober
from lbmux.lab import processes
from lbmux.lab.lab import Lab
from lbmux.lab.processes import Process
from lbmux.lab.systems.cloudflare import cloudflare
from lbmux.lab.topology import VIP, Topology
from lbmux.lab.traffic_client import traffic
from tests.api.asking import ask
from tests.daemons.running_daemons import configuration, service
from tests.health.servers import stream_server
from tests.lab.routed import Router, until, ways
from tests.labs import built
from tests.lbmux_command import lbmux

SEARCH = "/usr/sbin:/usr/local/sbin:/usr/bin"
HOSTS = {"host1": "10.1.1.2", "host2": "10.1.2.2"}
HEALTH = {
    "kind": "http",
    "path": "/whoami",
    "interval_s": 0.1,
    "timeout_s": 0.1,
    "rise": 1,
    "fall": 2,
    "watermark": 0.9,
}


def backends(*numbers: int, **more: Any) -> list[dict[str, Any]]:
    return [{"name": f"h{n}", "dip": f"10.1.{n}.2"} | more for n in numbers]


def two_services() -> Config:
    web, plain = service("web", 80, backends(1, 2), health=HEALTH), service("plain", 81, backends(1, 3))
    other = service("other", 80, backends(2), vip="192.0.2.2")
    return services_of_host(Config.model_validate(configuration(web, plain, other)), {ip_address("10.1.1.2")})


def test_only_the_hosts_own_backends_count_and_no_watermark() -> None:
    config = two_services()
    names = [(s.name, [b.name for b in s.backends]) for s in config.services]
    assert names == [("web", ["h1"]), ("plain", ["h1"])]
    assert config.services[0].health is not None and config.services[0].health.watermark is None


def test_an_edge_probes_its_own_host_whatever_muxes_would_do() -> None:
    async def run() -> tuple[BackendKey, bool, str]:
        results: asyncio.Queue[tuple[BackendKey, bool, str]] = asyncio.Queue()
        async with stream_server(b"") as port, Prober(lambda *result: results.put_nowait(result)) as prober:
            probes = {"kind": "tcp", "interval_s": 0.1, "timeout_s": 0.1, "through": "tunnel", "port": 80}
            local = [{"name": "h1", "dip": "10.0.0.1", "port": port}]
            config = at_loopback(Config.model_validate(configuration(service("web", 80, local, health=probes))))
            prober.configure(services_of_host(config, {ip_address("127.0.0.1")}))
            return await asyncio.wait_for(results.get(), 5)

    assert asyncio.run(run()) == (("web", "h1"), True, "connected")


def test_a_vip_is_served_when_all_of_its_services_here_are() -> None:
    config, web, plain = two_services(), ("web", "h1"), ("plain", "h1")
    assert served_vips(config, {web}, {}) == {ip_network(VIP)}
    assert served_vips(config, set(), {}) == set()  # a service without probes does not compensate for the other
    assert served_vips(config, {web}, {plain: "drain"}) == set()
    assert served_vips(config, {web}, {web: "disable"}) == set()


def test_a_backend_without_weight_serves_no_vip() -> None:
    config = Config.model_validate(configuration(service("web", 80, backends(1, weight=0) + backends(2))))
    assert served_vips(services_of_host(config, {ip_address("10.1.1.2")}), set(), {}) == set()
    assert served_vips(services_of_host(config, {ip_address("10.1.2.2")}), set(), {}) == {ip_network(VIP)}


def edges() -> Topology:
    """Two of them, with one service: its states are said in a line each."""
    config = configuration(service("web", 80, backends(1, 2), health=HEALTH))
    return replace(cloudflare("--bgp-speaker", "bird", "--drain", "0.1", hosts=2), config=config)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """All namespaces, the router's BIRD, and the edges; servers are started by the test."""
    with built(edges(), f"e{os.getpid()}", programs=False) as lab:
        for name in ("router", *HOSTS):
            lab.start(lab.topology.node(name), lab.topology.node(name).programs[-1], forked=True)
        yield lab


def serve(lab: Lab, host: str) -> Process:
    return lab.start(lab.topology.node(host), lab.topology.node(host).programs[0], forked=True)


def answers(lab: Lab) -> str:
    command = ["curl", "-sSf", "--max-time", "2", f"http://{VIP}/whoami"]
    ran = lab.run("client", command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return str(ran.stdout)


@pytest.mark.root
@pytest.mark.skipif(shutil.which("bird", path=SEARCH) is None, reason="bird is not installed")
def test_a_vip_is_where_it_is_healthy_and_not_drained_and_alive(lab: Lab) -> None:
    router = Router(lab)
    control = lab.directory / "host1.sock"
    until(lambda: [n["state"] for n in ask(control, "bgp")["neighbours"]] == ["established"])
    assert not ways(router)  # nothing answers yet
    shown = ask(control, "health")
    assert (shown["version"], shown["program"], shown["health"][0]["host"]) == (1, "edge", HOSTS["host1"])
    with pytest.raises(ControlError, match="an edge does not forward and has no tables"):
        ask(control, "flow_count", filter="tcp")

    first = serve(lab, "host1")
    until(lambda: ways(router) == {VIP: {HOSTS["host1"]}})
    assert answers(lab) == "h1"
    serve(lab, "host2")
    until(lambda: ways(router) == {VIP: set(HOSTS.values())})

    ran = lbmux("drain", "h1", "--control", str(control))
    assert ran.stdout == "web/h1: draining: by command\n"
    until(lambda: ways(router) == {VIP: {HOSTS["host2"]}}, 2)
    assert answers(lab) == "h2"
    ask(control, "override", backend="h1")
    until(lambda: ways(router) == {VIP: set(HOSTS.values())}, 5)

    processes.kill(first, signal.SIGKILL)
    took_s = until(lambda: ways(router) == {VIP: {HOSTS["host2"]}}, 2)
    print(f"withdrawn {1000 * took_s:.0f} ms after kill -9 of the service")
    serve(lab, "host1")
    until(lambda: ways(router) == {VIP: set(HOSTS.values())}, 5)

    processes.kill(lab.process("host1", "edge"), signal.SIGKILL)
    took_s = until(lambda: ways(router) == {VIP: {HOSTS["host2"]}}, 2)
    print(f"withdrawn {1000 * took_s:.0f} ms after kill -9 of the edge")
    processes.kill(lab.process("host2", "edge"), signal.SIGTERM)
    until(lambda: not ways(router), 2)


@pytest.mark.root
@pytest.mark.skipif(shutil.which("bird", path=SEARCH) is None, reason="bird is not installed")
def test_an_edge_that_is_withdrawn_breaks_its_own_connections_and_no_others(lab: Lab) -> None:
    """Without a mux, the flows go to a host that does not know them and resets them."""
    router = Router(lab)
    for host in HOSTS:
        serve(lab, host)
    until(lambda: ways(router) == {VIP: set(HOSTS.values())})
    with traffic(lab, "client", VIP, 7, "--connections", "40") as client:
        before = {one["number"]: one["backend"] for one in client.first["connections"]}
        assert set(before.values()) == {"h1", "h2"}  # some on each
        processes.kill(lab.process("host1", "edge"), signal.SIGKILL)
        until(lambda: ways(router) == {VIP: {HOSTS["host2"]}}, 2)
        broken: dict[int, str] = {}

        def all_of_host1() -> bool:
            broken.update({one["number"]: one["broken"] for one in client.report()["connections"] if one["broken"]})
            return {number for number, host in before.items() if host == "h1"} <= broken.keys()

        took_s = until(all_of_host1, 5, 0.05)
        print(f"{len(broken)} of 40 broken within {1000 * took_s:.0f} ms: {set(broken.values())}")
        assert {before[number] for number in broken} == {"h1"}


@pytest.mark.root
@pytest.mark.skipif(shutil.which("bird", path=SEARCH) is None, reason="bird is not installed")
def test_an_edge_is_drained_once_no_connection_is_left(lab: Lab) -> None:
    router, control = Router(lab), lab.directory / "host1.sock"

    def said() -> tuple[str, bool]:
        (line,) = ask(control, "health")["health"]
        return line["state"], line["drained"]

    serve(lab, "host1")
    until(lambda: ways(router) == {VIP: {HOSTS["host1"]}})
    # Connect from the host itself: no route leads there once the VIP is withdrawn.
    connection = lab.inside("host1", lambda: socket.create_connection((VIP, 80), 3))
    assert ask(control, "connections")["connections"] == [["web", "h1", 1]]
    for override, state in (("drain", "draining"), ("remove", "removing")):
        ask(control, "override", backend="h1", override=override)
        until(lambda: not ways(router), 2)
        time.sleep(2 * POLL_S)
        assert said() == (state, False)
    ask(control, "override", backend="h1", override="drain")
    connection.close()
    until(lambda: said() == ("draining", True), 5)
    ask(control, "override", backend="h1")
    until(lambda: said() == ("up", False), 5)
    until(lambda: ways(router) == {VIP: {HOSTS["host1"]}}, 5)


def test_without_a_router_it_is_wrong_usage() -> None:
    ran = lbmux("edge", "-c", "none.yaml", "-i", "lo")
    assert ran.returncode == 2 and "--bgp-peer" in ran.stderr


@pytest.mark.parametrize(
    "option", [("--driver", "xdp"), ("--xdp-mode", "native"), ("--metrics", "9100"), ("--health-token", "token")]
)
def test_options_of_a_mux_need_an_edge_that_balances(
    option: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["edge", "-c", "services.yaml", "-i", "eth0", "--bgp-peer", "10.0.0.1:64512"]
    assert run([*arguments, *option]) == 2
    assert "without --balance an edge forwards no packets" in capsys.readouterr().err
