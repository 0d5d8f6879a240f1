"""A mux whose backends lie behind another interface than its VIP: frames leave by the one that the route names."""

import socket
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP

from lbmux.lab.lab import Lab
from lbmux.lab.topology import Link, Node, Port, Program, Route, Topology
from tests.labs import built

pytestmark = pytest.mark.root
VIP = "192.0.2.1"
FRAMES = 50


def topology(driver: str, mode: str = "native", takes_xdp: bool = True) -> Topology:
    mux = Program("mux", "lbmux.cli.main", ("mux", "-c", "{config}", "-i", "eth0", "--driver", driver,
                                            "--xdp-mode", mode, "--control", "{state}/mux.sock"))  # fmt: skip
    nodes = (
        Node("client", "client", routes=(Route(f"{VIP}/32", ("10.8.0.2",)),)),
        Node("mux", "mux", programs=(mux,)),
        Node("host", "host"),
    )
    links = (
        Link(Port("client", "eth0", "10.8.0.1/24", {"tx": False}), Port("mux", "eth0", "10.8.0.2/24")),
        Link(Port("mux", "eth1", "10.9.0.2/24"), Port("host", "eth0", "10.9.0.3/24", takes_xdp=takes_xdp)),
    )
    service = {"name": "web", "vip": VIP, "protocol": "tcp", "port": 80, "backends": [{"dip": "10.9.0.3"}]}
    return Topology("two-interfaces", nodes, links, {"services": [service]})


@pytest.fixture(params=["packet", "xdp"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with built(topology(request.param), f"two-{request.param}") as lab:
        yield lab


def test_frames_leave_by_the_interface_of_the_route(lab: Lab) -> None:
    send_and_receive(lab)


def send_and_receive(lab: Lab) -> None:
    """Some flows from the client, and the same, tunnelled, at the host."""

    def listen() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP)
        sock.settimeout(2)
        return sock

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            for port in range(FRAMES):
                sock.sendto(bytes(IP(src="10.8.0.1", dst=VIP) / TCP(sport=1024 + port, dport=80)), (VIP, 0))

    with lab.inside("host", listen) as host:
        lab.inside("client", send)
        ports = set()
        while len(ports) < FRAMES:
            outer = IP(host.recv(4096))
            assert (outer.src, outer.dst, outer.proto) == ("10.8.0.2", "10.9.0.3", socket.IPPROTO_IPIP)
            if outer[TCP].dport == 80:  # otherwise the mux probes the host's agent
                ports.add(outer[TCP].sport)
    assert ports == set(range(1024, 1024 + FRAMES))
