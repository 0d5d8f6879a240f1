"""Connections that outlive their flow entry at the agent: by silence, by a restart, by tables that are gone.

A reply must never leave with the DIP as its source: the client's reset to that unknown peer would end the connection.
"""

import contextlib
import fcntl
import select
import signal
import socket
import sys
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from lbmux.lab.lab import Lab
from lbmux.lab.topology import VIP, VIP6
from tests.api.asking import ask
from tests.daemons.at_hosts import CLIENT, MUX, MUX6, dns
from tests.daemons.running_daemons import READY, START_S, STAY, Daemon, Wire, configuration, running, service, started
from tests.lbmux_command import lbmux

pytestmark = pytest.mark.root

DIP, DIP6, PORT, LOCAL_PORT = "10.1.1.2", "2001:db8:1:1::2", 9100, 9300
BOTH_VERSIONS = pytest.mark.parametrize(("vip", "dip"), [(VIP, DIP), (VIP6, DIP6)], ids=["IPv4", "IPv6"])
DIPS = {VIP: DIP, VIP6: DIP6}
HOST3 = {VIP: "10.1.3.2", VIP6: "2001:db8:1:3::2"}
"""A host in mode local."""
Ends = tuple[socket.socket, socket.socket]
DRIVERS = pytest.mark.parametrize("driver", ["tun", "xdp"])
AGAIN_S = 60.0
"""TCP doubles its pause with each packet that is lost; so after an agent's slow start the next may be this far away."""
SHORT_S = 1
SHORT = {"untrusted_s": SHORT_S, "tcp_s": SHORT_S, "fin_s": SHORT_S, "udp_s": SHORT_S}
VIP_TOO = 9200
"""Another port of the VIP that leads to the same server."""


def configure(lab: Lab, *ports: int, **more: Any) -> None:
    """Each port of the VIPs leads to the server on host1; LOCAL_PORT to the one on host3."""
    services = [
        service(f"s{port}-{vip}".replace(":", "-"), port, [{"dip": dip, "port": PORT}], vip=vip, **more)
        for port in ports
        for vip, dip in DIPS.items()
    ]
    services += [
        service(f"local-{vip}".replace(":", "-"), LOCAL_PORT, [{"dip": dip}], vip=vip, **more)
        for vip, dip in HOST3.items()
    ]
    lab.write_config(configuration(*services) | {"muxes": [MUX, MUX6]})


@contextlib.contextmanager
def agent(lab: Lab, driver: str) -> Iterator[Daemon]:
    """What it leaves behind is taken away in the end."""
    with running(lab, "host1", "agent", "--driver", driver, STAY) as daemon:
        yield daemon


@pytest.fixture(autouse=True)
def _nothing_left(lab: Lab) -> Iterator[None]:
    yield
    forget(lab)


def forget(lab: Lab) -> None:
    """Remove tables, programs and rules, as a reboot does."""
    lbmux("detach", "-i", "eth0", namespace=lab.namespace("host1")).check_returncode()
    for path in lab.directory.glob("*.tables"):
        path.unlink()


@contextlib.contextmanager
def connected(lab: Lab, address: str = VIP, port: int = PORT) -> Iterator[Ends]:
    """(client, server) of one connection that both ends have used."""
    node, at = ("host3", (address, port)) if port == LOCAL_PORT else ("host1", (DIPS.get(address, address), PORT))
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(lab.inside(node, lambda: socket.create_server(at, family=family)))
        listener.settimeout(10)
        client = stack.enter_context(lab.inside("client", lambda: socket.create_connection((address, port), 10)))
        server = stack.enter_context(listener.accept()[0])
        client.settimeout(AGAIN_S)
        server.settimeout(AGAIN_S)
        client.sendall(b"hello")
        assert server.recv(5) == b"hello"
        server.sendall(b"hello")
        assert client.recv(5) == b"hello"
        wait_for(lambda: not any(unacknowledged(end) for end in (client, server)))
        yield client, server


@contextlib.contextmanager
def connected_by_each(lab: Lab, *ports: int) -> Iterator[list[Ends]]:
    """A connection by each VIP and each of these ports."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connected(lab, vip, port)) for vip in DIPS for port in ports]


def unacknowledged(end: socket.socket) -> int:
    """Bytes that this end may still retransmit."""
    return int.from_bytes(fcntl.ioctl(end, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def pushed(client: socket.socket, server: socket.socket) -> None:
    """The server sends, the client receives it."""
    server.sendall(b"pushed")
    assert client.recv(6) == b"pushed"


def source(frame: bytes) -> str:
    packet = IPv6(frame[14:]) if frame[14] >> 4 == 6 else IP(frame[14:])
    return str(packet.src)


def counts(daemon: Daemon) -> dict[str, int]:
    slow: dict[str, int] = ask(daemon.control, "counters")["slowpath"]
    return slow


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@DRIVERS
@pytest.mark.parametrize("half_closed", [True, False], ids=["half closed", "idle"])
def test_a_server_may_be_silent_for_longer_than_every_idle_time(lab: Lab, driver: str, half_closed: bool) -> None:
    configure(lab, PORT, idle=SHORT)
    local = started(lab, "host3", "agent", "--driver", driver, "--mode", "local")
    with running(lab, "mux1", "mux"), local as other, agent(lab, driver):
        other.wait_for(READY["agent"], START_S)
        with connected_by_each(lab, PORT, LOCAL_PORT) as connections:
            for client, server in connections if half_closed else ():
                client.shutdown(socket.SHUT_WR)
                assert server.recv(1) == b""
            time.sleep(3 * SHORT_S)  # the client must stay silent
            for client, server in connections:
                pushed(client, server)


@DRIVERS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_loses_no_connection(lab: Lab, driver: str, number: signal.Signals) -> None:
    configure(lab, PORT, VIP_TOO)
    with running(lab, "mux1", "mux"), agent(lab, driver) as first, connected_by_each(lab, PORT) as connections:
        first.end(number)
        with Wire(lab, "client", version=None) as wire:
            for _, server in connections:
                server.sendall(b"meanwhile")
            seen = wire.frames(20, 0.5)
        assert not {DIP, DIP6} & {source(frame) for frame in seen}
        with agent(lab, driver):
            for client, server in connections:
                assert client.recv(9) == b"meanwhile"
                pushed(client, server)


@DRIVERS
def test_tables_that_are_gone_are_made_again_of_the_host_s_sockets(lab: Lab, driver: str) -> None:
    configure(lab, PORT)
    with running(lab, "mux1", "mux"), agent(lab, driver) as first, connected_by_each(lab, PORT) as connections:
        first.end()
        forget(lab)
        with agent(lab, driver) as second:
            for client, server in connections:
                pushed(client, server)
            assert "restored the flow entries of 2 connections" in second.log


@DRIVERS
def test_a_reply_that_may_be_of_two_vips_waits_until_the_client_names_one(lab: Lab, driver: str) -> None:
    configure(lab, PORT, VIP_TOO)
    with running(lab, "mux1", "mux"), agent(lab, driver) as first, connected(lab, port=VIP_TOO) as (client, server):
        first.end()
        forget(lab)
        with agent(lab, driver) as second, Wire(lab, "client") as wire:
            server.sendall(b"pushed")
            wait_for(lambda: counts(second).get("reply_ambiguous", 0) > 0)
            assert not select.select([client], [], [], 0)[0]
            client.sendall(b"named")
            assert client.recv(6) == b"pushed"
            assert {IP(frame[14:]).src for frame in wire.frames(100, 0.1)} == {VIP}


@DRIVERS
def test_a_fragmented_reply_without_a_connection_never_leaves(lab: Lab, driver: str) -> None:
    configure(lab, PORT)
    segment = IP(bytes(IP(src=DIP, dst=CLIENT) / TCP(sport=PORT, dport=40000, flags="A") / Raw(bytes(3000))))

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
            raw.bind((DIP, 0))
            raw.sendto(bytes(segment.payload), (CLIENT, 0))

    with agent(lab, driver) as daemon, Wire(lab, "client") as wire:
        lab.inside("host1", send)
        wait_for(lambda: counts(daemon).get("reply_without_connection", 0) == 1)
        assert not [frame for frame in wire.frames(3, 0.5) if source(frame) == DIP]


@DRIVERS
def test_a_displaced_entry_returns_with_the_next_reply(lab: Lab, driver: str) -> None:
    configure(lab, PORT, idle=SHORT)
    with running(lab, "mux1", "mux"), agent(lab, driver) as first, connected_by_each(lab, PORT) as connections:
        first.tell(signal.SIGSTOP)
        time.sleep(3 * SHORT_S)  # no agent keeps the entry
        for _, server in connections:
            server.sendall(b"pushed")
        first.tell(signal.SIGCONT)
        for client, _ in connections:
            assert client.recv(6) == b"pushed"


@DRIVERS
def test_a_connection_straight_to_the_dip_stays_one_over_a_restart(lab: Lab, driver: str) -> None:
    configure(lab, PORT)
    with agent(lab, driver) as first, connected(lab, DIP) as (client, server):
        first.end()
        with agent(lab, driver):
            pushed(client, server)
            client.sendall(b"again")
            assert server.recv(5) == b"again"


@DRIVERS
@BOTH_VERSIONS
def test_an_answer_that_the_host_fragments_comes_from_the_vip(lab: Lab, driver: str, vip: str, dip: str) -> None:
    server, client = dns(lab, vip, dip)
    answer = bytes(range(250)) * 16
    with running(lab, "mux1", "mux"), agent(lab, driver), server, client:
        client.send(b"question")
        _, origin = server.recvfrom(100)
        server.sendto(answer, origin)
        assert client.recv(5000) == answer


@DRIVERS
@BOTH_VERSIONS
def test_a_port_unreachable_of_the_host_reaches_a_connected_socket(lab: Lab, driver: str, vip: str, dip: str) -> None:
    server, client = dns(lab, vip, dip)
    server.close()
    with running(lab, "mux1", "mux"), agent(lab, driver), client:
        client.send(b"question")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)
