"""No tunnel: the host is on the mux's link and has the VIP itself; frames get its MAC address, and nothing else."""

import contextlib
import http.client
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether

from lbmux.lab.lab import Lab
from lbmux.lab.namespaces import link_mac
from lbmux.lab.processes import kill
from lbmux.lab.topology import VIP_ON_LOOPBACK, Link, Node, Port, Program, Route, Topology
from lbmux.tools.doctor.node_state import NodeState
from lbmux.tools.doctor.run_checks import examine
from tests.api.asking import ask
from tests.labs import built

pytestmark = pytest.mark.root
VIP = "192.0.2.1"
ETH_P_IP = 0x0800


def topology(driver: str) -> Topology:
    """A client whose way to the VIP leads over the mux, and a host whose replies go back by a link of their own."""
    mux = Program("mux", "lbmux.cli.main", ("mux", "-c", "{config}", "-i", "eth0", "--driver", driver,
                                            "--xdp-mode", "native", "--control", "{state}/mux.sock"))  # fmt: skip
    server = Program(
        "server", "lbmux.lab.test_server", ("--name", "h", "--address", VIP, "--web-port", "80", "--echo-port", "7")
    )
    nodes = (
        Node("client", "client", routes=(Route(f"{VIP}/32", ("10.8.0.2",)),)),
        Node("mux", "mux", programs=(mux,)),
        Node(
            "host", "host", VIP_ON_LOOPBACK, extra_addresses=(("lo", f"{VIP}/32"),),
            routes=(Route("10.8.0.0/24", ("10.7.0.1",)), Route("10.8.0.2/32", ("10.9.0.2",))), programs=(server,),
        ),
    )  # fmt: skip
    links = (
        Link(Port("client", "eth0", "10.8.0.1/24", {"tx": False}), Port("mux", "eth0", "10.8.0.2/24")),
        Link(Port("mux", "eth1", "10.9.0.2/24"), Port("host", "eth0", "10.9.0.3/24", takes_xdp=True)),
        Link(Port("client", "eth1", "10.7.0.1/24"), Port("host", "eth1", "10.7.0.3/24")),
    )
    backends = [{"dip": "10.9.0.3"}]
    service = {"name": "web", "vip": VIP, "protocol": "tcp", "port": 80, "tunnel": "direct", "backends": backends}
    service["health"] = {"kind": "http", "path": "/whoami", "through": "tunnel", "interval_s": 0.2, "timeout_s": 0.15}
    return Topology("direct", nodes, links, {"services": [service]})


@pytest.fixture(params=["packet", "xdp"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with built(topology(request.param), f"direct-{request.param}") as lab:
        yield lab


def wait_for(lab: Lab, state: str) -> str:
    """Wait until the backend is in that state, and return the reason."""

    def line() -> dict[str, Any]:
        (only,) = ask(lab.directory / "mux.sock", "health")["health"]
        return dict(only)

    deadline = time.monotonic() + 10
    while (status := line())["state"] != state or status["reason"] == "not probed yet":
        assert time.monotonic() < deadline, status
        time.sleep(0.02)
    return str(status["reason"])


def test_a_probe_goes_as_the_traffic_does(lab: Lab) -> None:
    assert wait_for(lab, "up").endswith(", through the tunnel")
    kill(lab.process("host", "server"), signal.SIGTERM)
    assert "refused" in wait_for(lab, "down").lower()


def test_the_doctor_probes_as_the_traffic_goes(lab: Lab) -> None:
    def seen() -> list[tuple[str, str, str]]:
        findings = lab.inside("mux", lambda: [*examine(NodeState("mux", lab.directory / "mux.sock"))])
        return [(one.check, one.state, one.seen) for one in findings if one.check in ("backend", "MTU")]

    assert seen() == [
        ("backend", "ok", "web/10.9.0.3:80 at 10.9.0.3 answers on the link"),
        ("MTU", "ok", "1500 bytes reach host 10.9.0.3, tunnel included (no tunnel)"),
    ]
    kill(lab.process("host", "server"), signal.SIGTERM)
    wait_for(lab, "down")  # and the mux has removed its MAC address
    ((check, state, said),) = seen()
    assert (check, state) == ("backend", "fault") and "port closed" in said


def test_a_connection_without_a_tunnel(lab: Lab) -> None:
    def listen() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.bind(("eth0", ETH_P_IP))
        sock.settimeout(3)
        return sock

    def get() -> str:
        with contextlib.closing(http.client.HTTPConnection(VIP, 80, timeout=3)) as connection:
            connection.request("GET", "/whoami")
            return connection.getresponse().read().decode()

    with lab.inside("host", listen) as host:
        assert lab.inside("client", get) == "h"
        frames = iter(lambda: Ether(host.recv(4096)), None)
        frame = next(one for one in frames if one[IP].src != "10.8.0.2")  # the mux probes the host meanwhile
    macs = [lab.inside(node, lambda name=name: link_mac(name)) for node, name in (("mux", "eth1"), ("host", "eth0"))]  # type: ignore[misc]
    assert [frame.src, frame.dst] == [mac.to_bytes(6, "little").hex(":") for mac in macs]
    assert (frame[IP].src, frame[IP].dst, frame[IP].ttl) == ("10.8.0.1", VIP, 63)
