"""What a router is said to do with a flow is what it does."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator

import pytest

from lbmux.control.config import Config
from lbmux.errors import SetupError
from lbmux.lab.lab import Lab
from lbmux.lab.topology import VIP, VIP6, ananta
from lbmux.tools.explain import Step, explain_configuration
from lbmux.tools.packet import Packet
from lbmux.tools.router_choice import with_router
from tests.control.inside import CONFIG

pytestmark = pytest.mark.root
PORTS = range(40000, 40008)
CLIENT, CLIENT6 = "198.51.100.2", "[2001:db8:100::2]"
ETH_P_IP, SOURCE_PORT_AT = 0x0800, 14 + 20
SECONDS = 5.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A client, a router and two muxes that take what comes and say nothing."""
    made = Lab(ananta(), f"rc{os.getpid()}")
    try:
        made.up(programs=False)
        yield made
    finally:
        made.down()


def asked(router: str, flow: str) -> Step:
    explanation = explain_configuration(Packet.parse(flow), Config.model_validate(CONFIG))
    packet, step, *_ = with_router(explanation, router, None).steps
    assert (packet.step, step.step) == ("packet", "router")
    return step


def connect() -> list[socket.socket]:
    """A first packet from each port."""
    made = []
    for port in PORTS:
        made.append(socket.socket())
        made[-1].setblocking(False)
        made[-1].bind(("", port))
        with contextlib.suppress(BlockingIOError):
            made[-1].connect((VIP, 80))
    return made


def listen() -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # 0: nothing before bind
    sock.bind(("eth0", ETH_P_IP))
    sock.setblocking(False)
    return sock


def test_is_the_mux_to_which_packets_come(lab: Lab) -> None:
    arrived = dict[int, str]()
    with contextlib.ExitStack() as stack:
        wires = {mux: stack.enter_context(lab.inside(mux, listen)) for mux in ("mux1", "mux2")}
        for sock in lab.inside("client", connect):
            stack.enter_context(sock)
        deadline = time.monotonic() + SECONDS
        while len(arrived) < len(PORTS):
            assert time.monotonic() < deadline, arrived
            for mux, wire in wires.items():
                with contextlib.suppress(BlockingIOError):
                    frame = wire.recv(2048)
                    port = int.from_bytes(frame[SOURCE_PORT_AT:][:2], "big")
                    if port in PORTS:
                        arrived[port] = mux
    router = lab.namespace("router")
    said = {port: asked(router, f"{CLIENT}:{port} > {VIP}:80/tcp").data["interface"] for port in PORTS}
    assert {port: f"to-{mux}" for port, mux in arrived.items()} == said
    assert set(arrived.values()) == {"mux1", "mux2"}


def test_a_router_that_has_no_route_says_so(lab: Lab) -> None:
    client = lab.namespace("client")  # which does not forward
    assert asked(client, f"{CLIENT}:40000 > {VIP}:80/tcp").found.startswith(f"{client} has no route")


def test_says_that_it_cannot_tell_for_ipv6(lab: Lab) -> None:
    assert "does not tell the way of IPv6" in asked(lab.namespace("router"), f"{CLIENT6}:40000 > [{VIP6}]:80/tcp").found


def test_no_router_of_that_name() -> None:
    with pytest.raises(SetupError, match="no such network namespace"):
        asked("no-such-router", f"{CLIENT}:40000 > {VIP}:80/tcp")
