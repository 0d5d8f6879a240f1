"""Two ports of a VIP that lead to one server and port: a packet to one takes no connection of the other."""

import contextlib
import itertools
import socket
import struct
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from lbmux.lab.lab import Lab
from lbmux.lab.topology import VIP, VIP6
from tests.daemons.at_hosts import MUX, MUX6
from tests.daemons.running_daemons import configuration, running, service
from tests.daemons.test_lost_entries import (
    DIPS,
    DRIVERS,
    PORT,
    VIP_TOO,
    agent,
    configure,
    connected_by_each,
    counts,
    forget,
    pushed,
    wait_for,
)

pytestmark = pytest.mark.root
HOST2 = {VIP: "10.1.2.2", VIP6: "2001:db8:1:2::2"}


@pytest.fixture(autouse=True)
def _nothing_left(lab: Lab) -> Iterator[None]:
    yield
    forget(lab)


def send_forged(lab: Lab, client: socket.socket, port: int, flags: str) -> None:
    """Send a packet with the client's address and port to another port of the VIP, as any machine could."""
    family, vip, (source, number, *_) = client.family, client.getpeername()[0], client.getsockname()
    header = IPv6 if family == socket.AF_INET6 else IP
    packet = header(src=source, dst=vip) / TCP(sport=number, dport=port, flags=flags, seq=1, ack=1)
    segment = bytes(header(bytes(packet)).payload)  # with its checksum
    with lab.inside("client", lambda: socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP)) as raw:
        raw.sendto(segment, (vip, 0))


def speak(client: socket.socket, server: socket.socket) -> None:
    pushed(client, server)
    client.sendall(b"again")
    assert server.recv(5) == b"again"


@contextlib.contextmanager
def listening(lab: Lab, node: str, dip: str) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in dip else socket.AF_INET
    with lab.inside(node, lambda: socket.create_server((dip, PORT), family=family)) as listener:
        listener.settimeout(10)
        yield listener


@contextlib.contextmanager
def from_port(lab: Lab, number: int, vip: str, port: int, listener: socket.socket) -> Iterator[socket.socket]:
    """The client's end of a connection from its port ``number`` (0: any), which other connections may have too."""

    def opened() -> socket.socket:
        client = socket.socket(listener.family)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind(("", number))
        client.settimeout(10)
        client.connect((vip, port))
        return client

    with lab.inside("client", opened) as client, listener.accept()[0] as server:
        speak(client, server)
        yield client
        speak(client, server)


@DRIVERS
def test_a_forged_packet_to_the_other_port_breaks_nothing(lab: Lab, driver: str) -> None:
    configure(lab, PORT, VIP_TOO)
    with running(lab, "mux1", "mux"), agent(lab, driver) as daemon, connected_by_each(lab, PORT) as connections:
        packets = itertools.product(connections, "AAASSS")
        for sent, ((client, server), flags) in enumerate(packets, 1):
            send_forged(lab, client, VIP_TOO, flags)
            wait_for(lambda sent=sent: counts(daemon).get("unknown_of_another_vip", 0) >= sent)  # type: ignore[misc]
            speak(client, server)


@DRIVERS
def test_a_client_s_port_serves_for_the_other_one_once_its_connection_is_over(lab: Lab, driver: str) -> None:
    configure(lab, PORT, VIP_TOO)
    with running(lab, "mux1", "mux"), agent(lab, driver) as daemon:
        with connected_by_each(lab, PORT) as connections:
            numbers = [client.getsockname()[1] for client, _ in connections]
            for client, server in connections:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                server.close()  # with a reset, of which the entry does not learn
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
        for (vip, dip), number in zip(DIPS.items(), numbers, strict=True):
            with listening(lab, "host1", dip) as listener, from_port(lab, number, vip, VIP_TOO, listener):
                pass
        assert counts(daemon)["unknown_reopened"] == len(DIPS)


@DRIVERS
def test_one_port_of_a_client_may_have_a_connection_by_each(lab: Lab, driver: str) -> None:
    """A server has one connection of an address and port, so the second one is opened at another server."""
    services = []
    for name, (vip, dip) in enumerate(DIPS.items()):
        first, second = {"dip": dip, "port": PORT, "weight": 100}, {"dip": HOST2[vip], "port": PORT}
        services += [
            service(f"one-{name}", PORT, [first], vip=vip),
            service(f"two-{name}", VIP_TOO, [first, second], vip=vip),
        ]
    lab.write_config(configuration(*services) | {"muxes": [MUX, MUX6]})
    other_agent = running(lab, "host2", "agent", "--driver", driver)
    with running(lab, "mux1", "mux"), agent(lab, driver), other_agent:
        for vip, dip in DIPS.items():
            with (
                listening(lab, "host1", dip) as here,
                from_port(lab, 0, vip, PORT, here) as client,
                listening(lab, "host2", HOST2[vip]) as there,
                from_port(lab, client.getsockname()[1], vip, VIP_TOO, there),
            ):
                pass
