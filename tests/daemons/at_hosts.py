"""Servers on the hosts, one service before them, and a client that speaks to it: what tests of agents share."""

import contextlib
import http.client
import socket
from collections.abc import Iterator

import pytest

from lbmux.lab import processes
from lbmux.lab.lab import Lab
from lbmux.lab.topology import VIP
from tests.daemons.running_daemons import configuration, service

CLIENT, MUX, STRANGER = "198.51.100.2", "10.0.1.2", "10.0.2.2"
MUX6 = "2001:db8:0:1::2"
NAT, LOCAL = ("host1", "nat", "10.1.1.2", 8080), ("host3", "local", "10.1.3.2", 80)
MODES = pytest.mark.parametrize(("node", "mode", "dip", "port"), [NAT, LOCAL], ids=["nat", "local"])
DNS_PORT = 5353


@contextlib.contextmanager
def serving(lab: Lab) -> Iterator[None]:
    """The topology's own web servers, and nothing else of it."""
    programs = [(node, program) for node in lab.topology.nodes for program in node.programs]
    started = [lab.start(node, program, forked=True) for node, program in programs if program.name == "server"]
    try:
        yield
    finally:
        processes.end(started)


def serve(lab: Lab, dip: str = "10.1.1.2", port: int = 8080) -> None:
    lab.write_config(configuration(service("web", 80, [{"name": "h", "dip": dip, "port": port}])))


def whoami(lab: Lab, address: str = VIP, port: int = 80) -> str:
    """Return the server that answers a client's HTTP request."""

    def get() -> str:
        connection = http.client.HTTPConnection(address, port, timeout=3)
        with contextlib.closing(connection):
            connection.request("GET", "/whoami")
            return connection.getresponse().read().decode()

    return lab.inside("client", get)


def dns(lab: Lab, vip: str = VIP, dip: str = "10.1.1.2") -> tuple[socket.socket, socket.socket]:
    """A UDP service: its server on host1, and a client that accepts answers from the VIP only."""
    muxes = {"muxes": [MUX, MUX6]}
    backends = [{"dip": dip, "port": DNS_PORT}]
    lab.write_config(configuration(service("dns", 53, backends, protocol="udp", vip=vip)) | muxes)
    family = socket.AF_INET6 if ":" in vip else socket.AF_INET

    def bound() -> socket.socket:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.bind((dip, DNS_PORT))
        sock.settimeout(3)
        return sock

    def connected() -> socket.socket:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.connect((vip, 53))
        sock.settimeout(3)
        return sock

    return lab.inside("host1", bound), lab.inside("client", connected)
