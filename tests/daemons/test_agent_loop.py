"""An agent in user space that gets more packets than it can read: probes of its host, and replies to a burst."""

import signal
import socket
import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from lbmux.frames.packet_ring import FRAMES, SO_RCVBUFFORCE
from lbmux.lab.lab import Lab
from lbmux.lab.topology import VIP
from lbmux.wire.numbers import IPIP_PROTOCOL, SYN, TCP_PROTOCOL
from lbmux.wire.packet import ip_packet, tcp_header, transport_packet
from tests.daemons.at_hosts import CLIENT, MUX
from tests.daemons.running_daemons import PROBE_PORT, Daemon, Wire, configuration, running, send, service

pytestmark = pytest.mark.root
DIP, PORT = "10.1.1.2", int.from_bytes(PROBE_PORT)
MOST_AT_ONCE, FEW = 2000, 100
"""Fewer than the ring holds, and four times what the TUN device's queue does; and what a busy machine may lose
elsewhere."""


@pytest.fixture
def agent(lab: Lab) -> Iterator[Daemon]:
    """An agent before a server that does not run, so that its host answers each SYN with a reset."""
    backend = {"name": "h", "dip": DIP, "port": 8999}
    lab.write_config(configuration(service("web", 80, [backend])) | {"flows": {"limit": 1 << 17}})
    with running(lab, "host1", "agent") as agent:
        yield agent


def syn(source: str, source_port: int, port: int) -> bytes:
    """Return a tunnelled SYN to the VIP."""
    inner = transport_packet(ip_address(source), ip_address(VIP), TCP_PROTOCOL, tcp_header(source_port, port, SYN, 7))
    return ip_packet(ip_address(MUX), ip_address(DIP), IPIP_PROTOCOL, inner)


def arrived_while_stopped(lab: Lab, agent: Daemon, packets: list[bytes]) -> None:
    agent.tell(signal.SIGSTOP)
    send(lab, "mux1", *packets)
    agent.tell(signal.SIGCONT)


def resets(wire: Wire, wanted: int) -> set[int]:
    """Return the ports that the host's resets go to, once ``wanted`` have come; those that came in 20 s otherwise."""
    deadline, ports = time.monotonic() + 20, set[int]()
    wire.socket.settimeout(0.1)
    while len(ports) < wanted and time.monotonic() < deadline:
        try:
            frame = wire.socket.recv(65536)
        except TimeoutError:
            continue
        if frame[23] == 6 and frame[47] & 4:
            ports.add(int.from_bytes(frame[36:38]))
    return ports


def test_a_probe_is_answered_though_the_ring_for_other_packets_is_full(lab: Lab, agent: Daemon) -> None:
    flood = [syn(CLIENT, 1024 + n, 80) for n in range(4 * FRAMES)]
    with Wire(lab, "mux1") as wire:
        arrived_while_stopped(lab, agent, [*flood, syn(MUX, PORT, PORT)])
        assert resets(wire, 1) == {PORT}


def test_replies_to_a_burst_do_not_overflow_the_device(lab: Lab, agent: Daemon) -> None:
    with Wire(lab, "client") as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        arrived_while_stopped(lab, agent, [syn(CLIENT, 1024 + n, 80) for n in range(MOST_AT_ONCE)])
        assert len(resets(wire, MOST_AT_ONCE - FEW)) >= MOST_AT_ONCE - FEW
