"""Edges that balance: two hosts with the VIPs, each a mux for both. The router sends to one or the other."""

import contextlib
import ctypes
import os
import re
import signal
import socket
import socketserver
import threading
import urllib.request
from collections.abc import Iterator
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lbmux.config.models import Config
from lbmux.daemons.balancing_edge import OneFrame, accepting_local, mux_addresses
from lbmux.errors import SetupError
from lbmux.frames.batch import Batch
from lbmux.frames.xdp import detach
from lbmux.lab.lab import Lab
from lbmux.lab.topology import TUNNEL_ADVMSS, VIP, VIP6, ananta
from lbmux.targets.bpf import pins
from tests.api.asking import ask
from tests.daemons.running_daemons import Daemon, configuration, rewrite, service, started
from tests.daemons.test_rights import confined
from tests.lab.routed import until
from tests.labs import built

FILE = Path("services.yaml")
OWN = [ip_address("10.1.1.2"), ip_address("10.1.1.3")]
PORT, CONNECTIONS = 8080, 24
FIRST_PORTS = count(40000, CONNECTIONS)
HOSTS = ("host1", "host2")
NETWORKS = {4: "10.1.{}.{}", 6: "2001:db8:1:{}::{}"}
LENGTHS = {4: 24, 6: 64}
VIPS = {4: VIP, 6: VIP6}
METRICS_PORT = 9417
MORE = ("--metrics", str(METRICS_PORT), "--xdp-mode", "native")
HEALTH = {"kind": "tcp", "interval_s": 0.1, "timeout_s": 0.1, "rise": 1, "fall": 2}


def config(muxes: list[str], *dips: str) -> Config:
    backends = [{"name": f"h{dip}", "dip": dip} for dip in dips]
    return Config.model_validate(configuration(service("web", 80, backends)) | {"muxes": muxes})


def test_an_edges_mux_has_the_address_of_its_host_that_is_in_the_list_of_muxes() -> None:
    assert mux_addresses(config(["10.1.1.3", "10.1.2.3"], "10.1.1.2", "10.1.2.2"), OWN, FILE) == (OWN[1],)


@pytest.mark.parametrize(
    ("muxes", "dips", "reason"),
    [
        (["10.1.2.3"], ["10.1.1.2"], "muxes: none is an address of this host"),
        (["10.1.1.3", "10.1.2.2"], ["10.1.1.2", "10.1.2.2"], "muxes: 10.1.2.2 is also the `dip` of a backend"),
        (["10.1.1.3"], ["10.1.2.2"], "no backend has an address of this host as its `dip`"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(muxes: list[str], dips: list[str], reason: str) -> None:
    with pytest.raises(SetupError, match=reason):
        mux_addresses(config(muxes, *dips), OWN, FILE)


def test_a_frame_of_the_slow_path_becomes_a_batch() -> None:
    taken: list[bytes] = []

    def take(batch: Batch, here: NDArray[np.intp]) -> None:
        (index,) = here.tolist()
        taken.append(ctypes.string_at(int(batch.address[index]), int(batch.length[index])))

    one = OneFrame(take)
    one(b"first frame")
    one(b"second")
    assert taken == [b"first frame", b"second"]


class Server(socketserver.ThreadingTCPServer):
    """Answers each line with its host's name, on all addresses of a node."""

    address_family, allow_reuse_address, daemon_threads = socket.AF_INET6, True, True

    def __init__(self, name: str) -> None:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    for _ in self.rfile:
                        self.wfile.write(f"{name}\n".encode())

        super().__init__(("::", PORT), Handler)


def answer(connection: socket.socket) -> str:
    connection.sendall(b"who?\n")
    return connection.recv(100).decode().strip()


def connected(lab: Lab, version: int, first_port: int) -> list[socket.socket]:
    """Connections from these ports on, so that the same ones go to the same servers in each run."""

    def connect() -> list[socket.socket]:
        own = {4: "198.51.100.2", 6: "2001:db8:100::2"}[version]
        ports = range(first_port, first_port + CONNECTIONS)
        return [socket.create_connection((VIPS[version], PORT), 10, (own, port)) for port in ports]

    return lab.inside("client", connect)


def route(lab: Lab, number: int) -> None:
    """Have the router send all packets for the VIPs to one host."""
    for version, network in NETWORKS.items():
        via = network.format(number, 2)
        command = ["ip", f"-{version}", "route", "replace", VIPS[version], "via", via]
        lab.run("router", command, check=True, timeout=10)


def set_up(lab: Lab, node: str, number: int) -> None:
    """Give a host the VIPs, an address for its mux, and an MSS that fits the tunnel."""
    for version, network in NETWORKS.items():
        mss = ["advmss", str(TUNNEL_ADVMSS - (40 if version == 6 else 0))]
        for command in (
            ["addr", "add", f"{network.format(number, 3)}/{LENGTHS[version]}", "dev", "eth0"],
            ["addr", "add", VIPS[version], "dev", "lo"],
            ["route", "replace", "default", "via", network.format(number, 1), *mss],
        ):
            lab.run(node, ["ip", f"-{version}", *command], check=True, timeout=10)


def pool() -> dict[str, Any]:
    services = []
    for version, network in NETWORKS.items():
        backends = [{"name": f"h{n}", "dip": network.format(n, 2)} for n in (1, 2)]
        services.append(service(f"web{version}", PORT, backends, vip=VIPS[version], health=HEALTH))
    muxes = [network.format(n, 3) for n in (1, 2) for network in NETWORKS.values()]
    return configuration(*services) | {"muxes": muxes}


def wait_until_up(edge: Daemon) -> None:
    """Wait until an edge's backends are up, which needs an answer from both agents."""
    until(lambda: all(one["state"] == "up" for one in ask(edge.control, "health")["health"]), 20, 0.05)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with built(ananta(), f"be{os.getpid()}", programs=False) as lab, contextlib.ExitStack() as stack:
        for number, node in enumerate(HOSTS, 1):
            set_up(lab, node, number)
            server = stack.enter_context(lab.inside(node, lambda node=node: Server(node)))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
        yield lab


@pytest.fixture(params=["packet", "xdp"])
def edges(lab: Lab, request: pytest.FixtureRequest) -> Iterator[list[Daemon]]:
    lab.write_config(pool())
    with contextlib.ExitStack() as stack:
        for node in HOSTS:
            stack.callback(lab.inside, node, lambda: detach("eth0"))
        options = ("--balance", "--driver", request.param, *MORE, "--bgp-speaker", "bird", "--drain", "0", "--bgp-peer")
        both = [
            stack.enter_context(started(lab, node, "edge", *options, NETWORKS[4].format(number, 1)))
            for number, node in enumerate(HOSTS, 1)
        ]
        for edge in both:
            edge.wait_for("2 services\n", 120)
        for edge in both:
            wait_until_up(edge)
        yield both


def filter_directory() -> Path:
    return pins.directory_of("eth0", pins.EDGE)


def slow_path(control: Path) -> dict[str, int]:
    counts: dict[str, int] = ask(control, "counters")["slowpath"]
    return counts


@contextlib.contextmanager
def through(lab: Lab, number: int) -> Iterator[dict[socket.socket, str]]:
    """Connections of both families that the router sends to one host, with the servers that have them."""
    route(lab, number)
    first_port = next(FIRST_PORTS)
    opened = [one for version in VIPS for one in connected(lab, version, first_port)]
    with contextlib.ExitStack() as stack:
        yield {stack.enter_context(one): answer(one) for one in opened}


@pytest.mark.root
def test_a_connection_stays_with_its_edge_whichever_one_gets_the_packets(lab: Lab, edges: list[Daemon]) -> None:
    with through(lab, 1) as servers:
        assert {*servers.values()} == {*HOSTS}
        route(lab, 2)
        assert {one: answer(one) for one in servers} == servers


@pytest.mark.root
def test_an_edge_without_entries_finds_connections_after_the_table_has_changed(lab: Lab, edges: list[Daemon]) -> None:
    """Some are at neither the edge that got the packet nor the one that its table names: both agents return them."""
    with through(lab, 1) as servers:
        rewrite(lab.config, "maglev:", "maglev:\n  seed: 77")
        for edge in edges:
            assert edge.reload().returncode == 0
            wait_until_up(edge)
        route(lab, 2)
        assert {one: answer(one) for one in servers} == servers
    agents = [edge.control.with_suffix(".agent.sock") for edge in edges]
    assert all(slow_path(agent)["unknown_returned"] > 0 for agent in agents)
    assert slow_path(edges[1].control)["returned_forwarded"] > 0


@pytest.mark.root
def test_metrics_of_an_edge_are_those_of_its_mux(lab: Lab, edges: list[Daemon]) -> None:
    def scraped() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    with through(lab, 1):
        pass
    text = lab.inside("host1", scraped)
    for version in VIPS:
        for number in (1, 2):
            labels = f'service="web{version}",backend="h{number}"'
            found = dict(re.findall(rf"^(lbmux_\w+){{{labels}}} (\S+)$", text, re.MULTILINE))
            assert float(found["lbmux_backend_up"]) == 1 and float(found["lbmux_new_flows_total"]) > 0


@pytest.mark.root
@pytest.mark.parametrize("edges", ["xdp"], indirect=True)
def test_the_kernel_delivers_and_forwards_on_when_the_edges_are_killed(lab: Lab, edges: list[Daemon]) -> None:
    with through(lab, 1) as servers:
        for edge in edges:
            edge.process.kill()
            edge.process.wait()
        assert {one: answer(one) for one in servers} == servers


@pytest.mark.root
@pytest.mark.parametrize("edges", ["packet"], indirect=True)
def test_the_host_of_a_killed_edge_resets_no_connection_of_another(lab: Lab, edges: list[Daemon]) -> None:
    """It has the VIPs, and gets packets until the router sends them elsewhere: they are lost, and sent again."""
    with through(lab, 1) as servers:
        edges[0].process.kill()
        edges[0].process.wait()
        others = [one for one, server in servers.items() if server == "host2"]
        for one in others:
            one.sendall(b"who?\n")
        route(lab, 2)
        assert {one.recv(100) for one in others} == {b"host2\n"}
    edges[1].process.send_signal(signal.SIGTERM)
    edges[1].process.wait()
    assert [lab.inside(node, filter_directory).exists() for node in HOSTS] == [True, False], "a stopped one leaves none"


@pytest.mark.root
def test_a_host_accepts_packets_from_its_own_addresses_only_meanwhile(lab: Lab) -> None:
    setting = Path("/proc/sys/net/ipv4/conf/eth0/accept_local")

    def values() -> list[str]:
        before = setting.read_text().strip()
        with accepting_local("eth0"):
            return [before, setting.read_text().strip()]

    assert lab.inside("host3", values) == ["0", "1"]
    assert lab.inside("host3", setting.read_text).strip() == "0"


@pytest.mark.root
@pytest.mark.parametrize("driver", ["packet", "xdp"])
def test_an_edge_with_the_rights_of_its_unit_serves(lab: Lab, driver: str) -> None:
    lab.write_config(pool())
    with contextlib.ExitStack() as stack:
        for node in HOSTS:
            stack.callback(lab.inside, node, lambda: detach("eth0"))
        speaker = ("--bgp-speaker", "bird", "--drain", "0", "--bgp-peer")
        both = [
            stack.enter_context(confined(lab, node, "balancing-edge", driver, *speaker, NETWORKS[4].format(number, 1)))
            for number, node in enumerate(HOSTS, 1)
        ]
        for edge in both:
            edge.wait_for("2 services\n", 120)
        for edge in both:
            wait_until_up(edge)
        with through(lab, 1) as servers:
            assert {*servers.values()} == {*HOSTS}
        for edge in both:
            assert ask(edge.control, "runtime")["driver"] == driver and " lacks CAP_" not in edge.log
