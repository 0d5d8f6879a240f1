"""The host agent as a process between real namespaces: both modes, refusals, and the state that it leaves behind."""

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyroute2 import IPRoute
from scapy.layers.inet import ICMP, IP, TCP

from lbmux.lab.lab import Lab
from lbmux.lab.topology import VIP
from tests.api.asking import ask
from tests.daemons.at_hosts import CLIENT, MODES, MUX, STRANGER, dns, serve, serving, whoami
from tests.daemons.running_daemons import Daemon, Wire, configuration, running, send, service

pytestmark = pytest.mark.root

SYN_ACK = 0x12


@pytest.fixture(scope="module", autouse=True)
def servers(lab: Lab) -> Iterator[None]:
    with serving(lab):
        yield


def tunnelled(source: str, dip: str, source_port: int) -> bytes:
    inner = IP(src=CLIENT, dst=VIP) / TCP(sport=source_port, dport=80, flags="S", seq=1)
    return bytes(IP(src=source, dst=dip) / inner)


def answers(wire: Wire, source_port: int) -> list[Any]:
    """Packets for a port of the client."""
    packets = [IP(frame[14:]) for frame in wire.frames(10, 0.5)]
    return [packet for packet in packets if TCP in packet and packet[TCP].dport == source_port]


@MODES
def test_a_connection_to_the_vip_works_and_the_reply_comes_from_it(
    lab: Lab, node: str, mode: str, dip: str, port: int
) -> None:
    serve(lab, dip, port)
    with running(lab, "mux1", "mux"), running(lab, node, "agent", "--mode", mode), Wire(lab, "mux1") as wire:
        assert whoami(lab, VIP, 80) == f"h{node[-1]}"
        through = [IP(frame[14:]) for frame in wire.frames(100, 0.3)]
    assert through
    assert {(packet.src, packet.dst) for packet in through} == {(CLIENT, VIP)}, "no reply through the mux"


def test_an_agent_keeps_its_history(lab: Lab) -> None:
    serve(lab)
    with running(lab, "mux1", "mux"), running(lab, "host1", "agent") as agent:
        assert whoami(lab) == "h1"
        deadline = time.monotonic() + 10
        while not sum(one["packets"] for one in ask(agent.control, "history", since=0.0)["points"]):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_udp_is_translated_in_both_directions(lab: Lab) -> None:
    server, client = dns(lab)
    with running(lab, "mux1", "mux"), running(lab, "host1", "agent"), server, client:
        client.send(b"question")
        question, origin = server.recvfrom(100)
        assert (question, origin) == (b"question", client.getsockname())
        server.sendto(b"answer", origin)
        assert client.recv(100) == b"answer", "from VIP:53, or the connected socket would not take it"


@MODES
def test_other_traffic_of_the_dip_passes_untouched(lab: Lab, node: str, mode: str, dip: str, port: int) -> None:
    serve(lab, dip, port)
    with running(lab, node, "agent", "--mode", mode):
        if mode == "nat":
            assert whoami(lab, dip, port) == "h1", "the backend's own port, asked without a mux"
        with Wire(lab, "client") as wire:
            send(lab, "client", bytes(IP(src=CLIENT, dst=dip) / ICMP(id=7, seq=1) / b"ping"))
            packets = [IP(frame[14:]) for frame in wire.frames(3, 0.5)]  # the connection may still be closing
            (reply,) = (packet for packet in packets if ICMP in packet)
            assert (reply.src, reply[ICMP].type, bytes(reply[ICMP].payload)) == (dip, 0, b"ping")
        server = lab.inside(node, lambda: socket.create_server((dip, 9000)))
        client = lab.inside("client", lambda: socket.create_connection((dip, 9000), 2))
        with server, client, server.accept()[0] as accepted:
            accepted.sendall(b"from the DIP")
            assert client.recv(100) == b"from the DIP"
        # The host itself opens a connection, too.
        server = lab.inside("client", lambda: socket.create_server((CLIENT, 9001)))
        client = lab.inside(node, lambda: socket.create_connection((CLIENT, 9001), 2))
        with server, client, server.accept()[0] as accepted:
            accepted.sendall(b"to the DIP")
            assert client.recv(100) == b"to the DIP"


@MODES
def test_only_configured_muxes_may_tunnel(lab: Lab, node: str, mode: str, dip: str, port: int) -> None:
    serve(lab, dip, port)
    with running(lab, node, "agent", "--mode", mode), Wire(lab, "client") as wire:
        send(lab, "mux2", tunnelled(STRANGER, dip, 4001))
        assert answers(wire, 4001) == []
        send(lab, "mux1", tunnelled(MUX, dip, 4002))
        (answer, *_) = answers(wire, 4002)
        assert (answer.src, answer[TCP].sport, int(answer[TCP].flags)) == (VIP, 80, SYN_ACK)
    with running(lab, node, "agent", "--mode", mode, "--mux", STRANGER), Wire(lab, "client") as wire:
        send(lab, "mux2", tunnelled(STRANGER, dip, 4003))
        assert answers(wire, 4003) != []


def test_a_tunnelled_packet_for_another_vip_is_refused(lab: Lab) -> None:
    serve(lab, "10.1.1.2", 8080)
    inner = IP(src=CLIENT, dst="10.1.1.2") / TCP(sport=4010, dport=8080, flags="S")
    with running(lab, "host1", "agent"), Wire(lab, "client") as wire:
        send(lab, "mux1", bytes(IP(src=MUX, dst="10.1.1.2") / inner))
        assert answers(wire, 4010) == []


def test_offers_clients_an_mss_that_fits_the_tunnel(lab: Lab) -> None:
    serve(lab, "10.1.1.2", 8080)
    with running(lab, "host1", "agent"), Wire(lab, "client") as wire:
        send(lab, "mux1", tunnelled(MUX, "10.1.1.2", 4020))
        (answer, *_) = answers(wire, 4020)
    assert dict(answer[TCP].options)["MSS"] == 1440


def traces() -> tuple[list[str], list[tuple[Any, ...]], int]:
    """Return what an agent could leave in the current namespace: devices, rules, routes."""
    with IPRoute() as ip:
        links = sorted(message.get_attr("IFLA_IFNAME") for message in ip.get_links())
        rules = sorted(
            (rule.get_attr("FRA_PRIORITY", 0), rule.get_attr("FRA_TABLE"), rule.get_attr("FRA_SRC", ""))
            for rule in ip.get_rules(family=socket.AF_INET)
        )
        return links, rules, len(ip.get_routes(family=socket.AF_INET))


def foreign_rule() -> None:
    with IPRoute() as ip:
        ip.rule("add", priority=9119, src="10.1.1.2", src_len=32, table=77)


@pytest.fixture
def stranger_rule(lab: Lab) -> Iterator[None]:
    """A foreign rule with the same priority as the agent's."""
    lab.inside("host1", foreign_rule)
    yield

    def remove() -> None:
        with IPRoute() as ip:
            ip.rule("del", priority=9119, table=77)

    lab.inside("host1", remove)


def test_sigterm_leaves_nothing_behind(lab: Lab, stranger_rule: None) -> None:
    serve(lab, "10.1.1.2", 8080)
    before = lab.inside("host1", traces)
    with running(lab, "host1", "agent") as agent:
        assert lab.inside("host1", traces) != before
        assert agent.end() == 0
        assert agent.log.endswith("stopped\n")
        assert not agent.control.exists()
    assert lab.inside("host1", traces) == before


def test_leftovers_of_a_killed_run_are_removed_by_the_next(lab: Lab, stranger_rule: None) -> None:
    serve(lab, "10.1.1.2", 8080)
    before = lab.inside("host1", traces)
    with running(lab, "host1", "agent") as first:
        first.end(signal.SIGKILL)
    left = lab.inside("host1", traces)
    assert left[1] != before[1], "so that no reply leaves with the DIP as its source"
    with running(lab, "mux1", "mux"), running(lab, "host1", "agent") as second:
        assert len(lab.inside("host1", traces)[1]) == len(left[1]), "not one rule twice"
        assert whoami(lab, VIP, 80) == "h1"
        assert second.end() == 0
    assert lab.inside("host1", traces) == before


def test_a_second_agent_is_refused_and_does_not_harm_the_first(lab: Lab) -> None:
    serve(lab, "10.1.1.2", 8080)
    with running(lab, "mux1", "mux"), running(lab, "host1", "agent"):
        other = Daemon(lab, "host1", "agent", "--control", str(lab.directory / "other.sock"))
        assert other.process.wait(30) == 1
        assert other.log == "lbmux: TUN device lbmux0: another agent uses it (stop that agent first)\n"
        assert whoami(lab, VIP, 80) == "h1"


@pytest.mark.parametrize("how", ["command", "SIGHUP"])
def test_reload_serves_what_is_new_and_established_connections_stay(lab: Lab, how: str) -> None:
    serve(lab, "10.1.1.2", 8080)
    web = service("web", 80, [{"name": "h", "dip": "10.1.1.2", "port": 8080}])
    echo = service("echo", 7, [{"name": "e", "dip": "10.1.1.2", "port": 8007}])
    lab.write_config(configuration(echo))
    with running(lab, "mux1", "mux") as mux, running(lab, "host1", "agent") as agent:
        client = lab.inside("client", lambda: socket.create_connection((VIP, 7), 3))
        with client, client.makefile("rw") as lines:
            assert exchange(lines, "before") == "h1 before"
            lab.write_config(configuration(echo, web))
            tell = reloads(how)
            tell(agent)
            tell(mux)
            assert exchange(lines, "after") == "h1 after"
            assert whoami(lab, VIP, 80) == "h1"
            assert exchange(lines, "still") == "h1 still"


def exchange(lines: Any, text: str) -> str:
    lines.write(f"{text}\n")
    lines.flush()
    return str(lines.readline().strip())


def reloads(how: str) -> Callable[[Daemon], None]:
    def by_command(daemon: Daemon) -> None:
        ran = daemon.reload()
        assert (ran.returncode, ran.stdout) == (0, f"{daemon.control}: service web: added\n")

    def by_signal(daemon: Daemon) -> None:
        daemon.tell(signal.SIGHUP)
        daemon.wait_for("in force: service web: added")

    return {"command": by_command, "SIGHUP": by_signal}[how]


def test_a_bad_reload_changes_nothing_and_names_file_and_line(lab: Lab) -> None:
    serve(lab, "10.1.1.2", 8080)
    with running(lab, "mux1", "mux"), running(lab, "host1", "agent") as agent:
        lab.config.write_text("services:\n  - name: web\n    vip: [nonsense]\n")
        ran = agent.reload()
        assert ran.returncode == 1
        assert f"{lab.config}:3: services[0].vip: " in ran.stderr
        agent.tell(signal.SIGHUP)
        agent.wait_for("the running one stays in force")
        assert f"{lab.config}:3: services[0].vip: " in agent.log
        assert whoami(lab, VIP, 80) == "h1"


def test_a_large_upload_and_download_arrive_whole(lab: Lab) -> None:
    from lbmux.lab.test_server import PATTERN, body_digest

    serve(lab, "10.1.1.2", 8080)
    body = PATTERN * 40
    with running(lab, "mux1", "mux"), running(lab, "host1", "agent"):
        put = ["curl", "-sS", "--max-time", "20", "--upload-file", "-", f"http://{VIP}/digest"]
        assert lab.run("client", put, input=body, capture_output=True).stdout.decode() == body_digest(len(body))
        get = ["curl", "-sS", "--max-time", "20", f"http://{VIP}/bytes/{len(body)}"]
        assert lab.run("client", get, stdout=subprocess.PIPE).stdout == body


def test_without_a_backend_of_this_host_it_runs_and_waits_for_one(lab: Lab) -> None:
    lab.write_config(configuration(service("web", 80, [{"dip": "10.1.2.2"}])))
    with running(lab, "host1", "agent") as agent:
        assert ": 0 backends of this host" in agent.log
        assert agent.end() == 0
