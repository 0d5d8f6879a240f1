"""Muxes and agents with each driver between real namespaces report it, and forward the same traffic."""

import errno
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyroute2 import IPRoute
from scapy.layers.inet import IP, TCP, UDP

from lbmux.daemons.drivers import Driver, DriverChoice, choose, start
from lbmux.datapath.tables import LOCKED, Sizes
from lbmux.frames.xdp import detach
from lbmux.lab.lab import Lab
from lbmux.lab.test_server import PATTERN, body_digest
from lbmux.lab.topology import VIP
from lbmux.lab.topology_builder import PASS
from lbmux.linux.offloads import set_features
from lbmux.targets.bpf.syscall import Attach, load_program
from tests.api.asking import ask
from tests.daemons.at_hosts import CLIENT, LOCAL, MODES, MUX, NAT, STRANGER, dns, serve, serving, whoami
from tests.daemons.running_daemons import STAY, Daemon, Wire, configuration, running, send, service

pytestmark = pytest.mark.root

XDP = ("--driver", "xdp", "--detach-on-exit")
STAYS = ("--driver", "xdp", STAY)
REQUEST = b"GET /whoami HTTP/1.0\r\n\r\n"


@pytest.fixture(scope="module", autouse=True)
def servers(lab: Lab) -> Iterator[None]:
    with serving(lab):
        yield


@pytest.fixture(autouse=True)
def nothing_is_left(lab: Lab) -> Iterator[None]:
    yield
    for node in ("mux1", "host1", "host3"):
        lab.inside(node, lambda: detach("eth0"))


def runtime(daemon: Daemon) -> tuple[Any, ...]:
    said = ask(daemon.control, "runtime")
    return said["driver"], said["modes"], said["adopted"]


def verdicts(daemon: Daemon) -> dict[str, int]:
    return {line["verdict"]: line["packets"] for line in ask(daemon.control, "counters")["verdicts"]}


def connect(lab: Lab, address: str, port: int) -> socket.socket:
    return lab.inside("client", lambda: socket.create_connection((address, port), 3))


def test_status_of_user_space_drivers(lab: Lab) -> None:
    serve(lab)
    with running(lab, "mux1", "mux") as mux, running(lab, "host1", "agent") as agent:
        assert runtime(mux) == ("packet", {}, False)
        assert runtime(agent) == ("tun", {}, False)
        assert ask(mux.control, "runtime")["instructions"] == {}


def test_a_start_warns_where_xdp_is_generic(caplog: pytest.LogCaptureFixture) -> None:
    why = "the MTU of 9000 is too large"
    kernel: Any = SimpleNamespace(attach=lambda programs: None, loaded={}, native_refused=why)
    nothing: Any = None
    with caplog.at_level(logging.WARNING):
        Driver("mux", "eth0", nothing, 0, "xdp", kernel).start()
    assert [record.getMessage() for record in caplog.records] == [f"interface eth0: XDP is generic, not native: {why}"]


def test_a_full_disk_does_not_stop_an_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    store, sizes = tmp_path / "agent.tables", Sizes(64, services=8, slots=16, backends=8, buckets=64, endpoints=8)
    with choose(DriverChoice("agent", "lo", "tun", "tun", {}, store=store), lambda workers: sizes) as driver:
        assert driver.stored is None and driver.tables.is_initialised
    assert f"flow store {store}: No space left on device; flows are kept in memory only" in caplog.text


def test_what_a_killed_process_left_half_written_is_freed_at_the_next_start(tmp_path: Path) -> None:
    store, sizes = tmp_path / "agent.tables", Sizes(64, services=8, slots=16, backends=8, buckets=64, endpoints=8)
    for adopted in (False, True):
        with choose(DriverChoice("agent", "lo", "tun", "tun", {}, store=store), lambda workers: sizes) as driver:
            assert driver.adopted == adopted
            start(driver)
            assert not driver.tables.flows["version"].any()
            driver.tables.flows["version"][5, 0] = LOCKED >> 48


def test_status_of_kernel_drivers(lab: Lab) -> None:
    serve(lab)
    both = {"xdp": "native", "tcx_egress": "tcx"}
    for adopted in (False, True):
        with running(lab, "mux1", "mux", *STAYS) as mux, running(lab, "host1", "agent", *STAYS) as agent:
            assert runtime(mux) == ("xdp", {"xdp": "generic"}, adopted), "generic on a veth"
            assert runtime(agent) == ("xdp", both, adopted)
            counts = ask(mux.control, "runtime")["instructions"] | ask(agent.control, "runtime")["instructions"]
            assert set(counts) == {"mux_xdp", "agent_xdp", "agent_tc"}
            assert all(100 < count < 10_000 for count in counts.values())


def test_auto_is_the_kernel_where_it_can_be(lab: Lab) -> None:
    serve(lab)
    automatic = ("--driver", "auto", "--detach-on-exit")
    with running(lab, "mux1", "mux", *automatic) as mux, running(lab, "host1", "agent", *automatic) as agent:
        assert (runtime(mux)[0], runtime(agent)[0]) == ("xdp", "xdp")
        assert whoami(lab) == "h1"


@pytest.fixture
def occupied(lab: Lab) -> Iterator[None]:
    """Another program is on the interface of host1."""

    def set_program(descriptor: int) -> None:
        with IPRoute() as ip:
            ip.link("set", index=ip.link_lookup(ifname="eth0")[0], xdp_fd=descriptor)

    program = load_program(Attach.XDP, PASS, "other").descriptor
    lab.inside("host1", lambda: set_program(program))
    os.close(program)
    yield
    lab.inside("host1", lambda: set_program(-1))


def test_an_agent_falls_back_and_says_so(lab: Lab, occupied: None) -> None:
    serve(lab)
    with running(lab, "mux1", "mux"), running(lab, "host1", "agent", "--driver", "auto") as agent:
        assert runtime(agent) == ("tun", {}, False)
        assert (
            "XDP is not available on eth0; falling back to driver tun: interface eth0: another XDP program" in agent.log
        )
        assert whoami(lab) == "h1"
    refused = Daemon(lab, "host1", "agent", *STAYS)
    assert refused.process.wait(30) == 1
    assert "lbmux: interface eth0: another XDP program is attached" in refused.log
    assert "Traceback" not in refused.log


@pytest.mark.parametrize(
    ("mux_driver", "node", "mode", "dip", "port"), [("packet", *NAT), ("xdp", *NAT), ("xdp", *LOCAL)]
)
def test_connections_to_the_vip(lab: Lab, mux_driver: str, node: str, mode: str, dip: str, port: int) -> None:
    serve(lab, dip, port)
    mux_options = XDP if mux_driver == "xdp" else ()
    with running(lab, "mux1", "mux", *mux_options), running(lab, node, "agent", *XDP, "--mode", mode) as agent:
        assert [whoami(lab) for _ in range(5)] == [f"h{node[-1]}"] * 5
        body = PATTERN * 40
        put = ["curl", "-sS", "--max-time", "20", "--upload-file", "-", f"http://{VIP}/digest"]
        assert lab.run("client", put, input=body, capture_output=True).stdout.decode() == body_digest(len(body))
        get = ["curl", "-sS", "--max-time", "20", f"http://{VIP}/bytes/{len(body)}"]
        assert lab.run("client", get, capture_output=True).stdout == body
        counted = verdicts(agent)
        assert counted["delivered"] > len(body) / 1500
        assert (counted["replied"] > 0) == (mode == "nat")


@MODES
def test_other_traffic_of_the_dip_passes_untouched(lab: Lab, node: str, mode: str, dip: str, port: int) -> None:
    serve(lab, dip, port)
    with running(lab, "mux1", "mux", *XDP), running(lab, node, "agent", *XDP, "--mode", mode):
        server = lab.inside(node, lambda: socket.create_server((dip, 9000)))
        with server, connect(lab, VIP, 80) as through, connect(lab, dip, 9000) as direct, server.accept()[0] as other:
            for turn in (b"one", b"two"):
                direct.sendall(turn)
                assert other.recv(100) == turn
                other.sendall(turn * 2)
                assert direct.recv(100) == turn * 2
            through.sendall(REQUEST)
            assert through.recv(1000).startswith(b"HTTP/1.")
        if mode == "nat":
            with connect(lab, VIP, 80) as through, connect(lab, dip, port) as direct:
                for connection in (direct, through):
                    connection.sendall(REQUEST)
                    assert connection.recv(1000).startswith(b"HTTP/1."), "the same server, by VIP and by DIP"
        listener = lab.inside("client", lambda: socket.create_server((CLIENT, 9001)))
        opened = lab.inside(node, lambda: socket.create_connection((CLIENT, 9001), 2))
        with listener, opened, listener.accept()[0] as accepted:
            accepted.sendall(b"to the DIP")
            assert opened.recv(100) == b"to the DIP", "a connection that the host itself opens"


def answers(wire: Wire, port: int, seconds: float = 1.0) -> list[Any]:
    """The packets for a port of the client."""
    packets = [IP(frame[14:]) for frame in wire.frames(10, seconds)]
    return [packet for packet in packets if TCP in packet and packet[TCP].dport == port]


@MODES
def test_only_a_mux_may_tunnel(lab: Lab, node: str, mode: str, dip: str, port: int) -> None:
    serve(lab, dip, port)
    with running(lab, node, "agent", *XDP, "--mode", mode) as agent, Wire(lab, "client") as wire:
        source_port = 4000 + port
        inner = IP(src=CLIENT, dst=VIP) / TCP(sport=source_port, dport=80, flags="S")
        send(lab, "mux2", *[bytes(IP(src=STRANGER, dst=dip) / inner)] * 3)
        assert answers(wire, source_port, 0.3) == []
        assert (verdicts(agent)["not_a_mux"], verdicts(agent)["delivered"]) == (3, 0)
        send(lab, "mux1", bytes(IP(src=MUX, dst=dip) / inner))
        answer = answers(wire, source_port)[0]
        assert (answer.src, answer[TCP].sport, str(answer[TCP].flags)) == (VIP, 80, "SA")
        assert verdicts(agent)["delivered"] >= 1


def sound(frame: bytes, transport: Any) -> Any:
    """The packet in a frame, whose checksums were right."""
    packet = IP(frame[14:])
    again = IP(bytes(packet))
    del again.chksum, again[transport].chksum
    again = IP(bytes(again))
    assert (packet.chksum, packet[transport].chksum) == (again.chksum, again[transport].chksum)
    return packet


@pytest.fixture
def finished_by_hand(lab: Lab) -> Iterator[None]:
    """The host's interface does not finish checksums: the kernel does, behind the tc program."""
    before = lab.inside("host1", lambda: set_features("eth0", {"tx": False}))
    yield
    lab.inside("host1", lambda: set_features("eth0", before))


@pytest.mark.parametrize("mux_driver", ["packet", "xdp"])
def test_udp_in_both_directions_with_valid_checksums(lab: Lab, finished_by_hand: None, mux_driver: str) -> None:
    server, client = dns(lab)
    mux_options = XDP if mux_driver == "xdp" else ()
    with running(lab, "mux1", "mux", *mux_options), running(lab, "host1", "agent", *XDP), server, client:
        for text in (b"question", b"odd", b"x" * 1400):
            with Wire(lab, "host1") as at_host, Wire(lab, "client") as at_client:
                client.send(text)
                question, origin = server.recvfrom(2000)
                assert (question, origin) == (text, client.getsockname())
                server.sendto(text[::-1], origin)
                assert client.recv(2000) == text[::-1], "from VIP:53, or the connected socket would not take it"
                asked, answered = (sound(wire.frames(1)[0], UDP) for wire in (at_host, at_client))
            assert (asked.dst, asked[UDP].dport) == ("10.1.1.2", 5353)
            assert (answered.src, answered[UDP].sport) == (VIP, 53)


@pytest.mark.parametrize(
    ("number", "limit"), [(signal.SIGKILL, 1 << 18), (signal.SIGTERM, 1 << 16)], ids=["killed", "smaller-tables"]
)
def test_a_connection_outlives_agent_and_mux(lab: Lab, limit: int, number: signal.Signals) -> None:
    serve(lab)
    echo = service("echo", 7, [{"name": "e", "dip": "10.1.1.2", "port": 9007}])
    lab.write_config(configuration(echo) | {"flows": {"limit": 1 << 18}})
    server = lab.inside("host1", lambda: socket.create_server(("10.1.1.2", 9007)))
    with (
        server, running(lab, "mux1", "mux", *STAYS) as mux, running(lab, "host1", "agent", *STAYS) as agent,
        connect(lab, VIP, 7) as client, server.accept()[0] as accepted,
    ):  # fmt: skip
        assert exchanged(client, accepted, b"before")
        for daemon in (mux, agent):
            daemon.end(number)
        assert exchanged(accepted, client, b"without a daemon")
        lab.write_config(configuration(echo) | {"flows": {"limit": limit}})
        with running(lab, "host1", "agent", *XDP) as later, running(lab, "mux1", "mux", *XDP):
            assert runtime(later)[2] == (limit == 1 << 18)
            assert exchanged(accepted, client, b"the server is the first to speak")
            assert exchanged(client, accepted, b"after")


def exchanged(one: socket.socket, other: socket.socket, text: bytes) -> bool:
    other.settimeout(3)
    one.sendall(text)
    return other.recv(100) == text
