"""The predicted choice of a router is the one that it makes."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from lbmux.config.models import Config
from lbmux.errors import SetupError
from lbmux.lab import namespaces
from lbmux.lab.lab import Lab
from lbmux.lab.topology import VIP, VIP6, ananta
from lbmux.tools.explain_mux import explain_configuration
from lbmux.tools.explanation import Step
from lbmux.tools.packet_text import ClientPacket
from lbmux.tools.router_choice import with_router, with_seed
from tests.labs import built
from tests.linux.inside import CONFIG

pytestmark = pytest.mark.root
PORTS = range(40000, 40024)
CLIENT, CLIENT6 = "198.51.100.2", "[2001:db8:100::2]"
ETH_P_IP, ETH_P_IPV6, SOURCE_PORT_AT = 0x0800, 0x86DD, 14 + 20
MUXES = ("mux1", "mux2")
READ = Config.model_validate(CONFIG)
SECONDS = 5.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A client, a router and two muxes that take what comes and say nothing."""
    with built(ananta(), f"rc{os.getpid()}", programs=False) as lab:
        yield lab


def asked(router: str, flow: str) -> Step:
    explanation = explain_configuration(ClientPacket.parse(flow), READ)
    packet, step, *_ = with_router(explanation, router, None).steps
    assert (packet.step, step.step) == ("packet", "router")
    return step


def connect(vip: str) -> list[socket.socket]:
    """A first packet from each port."""
    made = []
    for port in PORTS:
        made.append(socket.socket(socket.AF_INET6 if ":" in vip else socket.AF_INET))
        made[-1].setblocking(False)
        made[-1].bind(("", port))
        with contextlib.suppress(BlockingIOError):
            made[-1].connect((vip, 80))
    return made


def listen(kind: int) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # protocol 0: no frames until bind
    sock.bind(("eth0", kind))
    sock.setblocking(False)
    return sock


def arrivals(lab: Lab, vip: str) -> dict[int, str]:
    """Return, for each port, the mux that its packets arrive at."""
    kind, port_at = (ETH_P_IPV6, SOURCE_PORT_AT + 20) if ":" in vip else (ETH_P_IP, SOURCE_PORT_AT)
    arrived = dict[int, str]()
    with contextlib.ExitStack() as stack:
        wires = {mux: stack.enter_context(lab.inside(mux, lambda: listen(kind))) for mux in MUXES}
        for sock in lab.inside("client", lambda: connect(vip)):
            stack.enter_context(sock)
        deadline = time.monotonic() + SECONDS
        while len(arrived) < len(PORTS):
            assert time.monotonic() < deadline, arrived
            for mux, wire in wires.items():
                with contextlib.suppress(BlockingIOError):
                    frame = wire.recv(2048)
                    port = int.from_bytes(frame[port_at:][:2], "big")
                    if port in PORTS:
                        arrived[port] = mux
    assert set(arrived.values()) == set(MUXES)
    return arrived


def of_router(lab: Lab, client: str, vip: str) -> dict[int, str]:
    """Return, for each port, the mux that the router is predicted to send to."""
    said = {port: asked(lab.namespace("router"), f"{client}:{port} > {vip}:80/tcp") for port in PORTS}
    return {port: step.data["interface"].removeprefix("to-") for port, step in said.items()}


@pytest.fixture
def seed(lab: Lab, request: pytest.FixtureRequest) -> Iterator[int]:
    """The router's seed, as its administrator may set it."""
    setting = "net.ipv4.fib_multipath_hash_seed"
    if not Path("/proc/sys", *setting.split(".")).exists():
        pytest.skip("this kernel has no fib_multipath_hash_seed (6.11)")
    lab.inside("router", lambda: namespaces.set_sysctls({setting: str(request.param)}))
    yield request.param
    lab.inside("router", lambda: namespaces.set_sysctls({setting: "0"}))


def test_is_the_mux_to_which_packets_come(lab: Lab) -> None:
    assert arrivals(lab, VIP) == of_router(lab, CLIENT, VIP)


@pytest.mark.parametrize("seed", [7, 4_000_000_000], indirect=True)
@pytest.mark.parametrize(("client", "vip"), [(CLIENT, VIP), (CLIENT6, VIP6)])
def test_with_a_seed_the_router_and_its_twin_say_to_which_mux_packets_come(
    lab: Lab, seed: int, client: str, vip: str
) -> None:
    (route,) = (route for route in lab.topology.node("router").routes if route.destination.startswith(f"{vip}/"))
    ways = [ip_address(way) for way in route.via]
    text = f"[{vip}]" if ":" in vip else vip
    twin = dict[int, str]()
    for port in PORTS:
        explanation = explain_configuration(ClientPacket.parse(f"{client}:{port} > {text}:80/tcp"), READ)
        data = with_seed(explanation, seed, ways, None).steps[1].data
        twin[port] = MUXES[ways.index(ip_address(data["via"]))]
    assert arrivals(lab, vip) == of_router(lab, client, text) == twin


@pytest.mark.parametrize("seed", [7], indirect=True)
def test_weights_count_in_a_twin_as_at_the_router(lab: Lab, seed: int) -> None:
    command = f"ip -6 route replace {VIP6}/128 nexthop via 2001:db8:0:1::2 weight {{}} nexthop via 2001:db8:0:2::2"
    lab.run("router", command.format(5).split(), check=True)
    try:
        assert arrivals(lab, VIP6) == of_router(lab, CLIENT6, f"[{VIP6}]")
    finally:
        lab.run("router", command.format(1).split(), check=True)


def held() -> tuple[str, list[threading.Thread], int]:
    """Return this process's network namespace, its threads, one of which enters the twin's, and its descriptors."""
    return os.readlink("/proc/self/ns/net"), threading.enumerate(), len(os.listdir("/proc/self/fd"))


def test_a_twin_leaves_nothing_behind() -> None:
    before = held()
    way = [ip_address("10.0.1.2"), ip_address("10.0.2.2")]
    with_seed(explain_configuration(ClientPacket.parse(f"{CLIENT}:1 > {VIP}:80/tcp"), READ), 7, way, None)
    assert held() == before


def test_a_router_that_has_no_route_says_so(lab: Lab) -> None:
    client = lab.namespace("client")  # a host that does not forward
    assert asked(client, f"{CLIENT}:40000 > {VIP}:80/tcp").found.startswith(f"{client} has no route")


def test_ipv6_without_a_seed_is_unknown(lab: Lab) -> None:
    assert "cannot tell IPv6's next hop" in asked(lab.namespace("router"), f"{CLIENT6}:40000 > [{VIP6}]:80/tcp").found


def test_no_router_of_that_name() -> None:
    with pytest.raises(SetupError, match="no such network namespace"):
        asked("no-such-router", f"{CLIENT}:40000 > {VIP}:80/tcp")
