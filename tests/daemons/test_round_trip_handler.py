"""Round-trip times of real clients, as an agent reports them; and that no client's address leaves the host."""

import contextlib
import json
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from lbmux.api.protocol import VERSION
from lbmux.cli.main import run as lbmux
from lbmux.lab.lab import Lab
from lbmux.lab.topology import VIP
from tests.daemons.at_hosts import CLIENT, MODES, serve, serving
from tests.daemons.running_daemons import running, started, wait_for_hosts

pytestmark = pytest.mark.root
CONNECTIONS = 60


@pytest.fixture(scope="module", autouse=True)
def servers(lab: Lab) -> Iterator[None]:
    with serving(lab):
        yield


@contextlib.contextmanager
def connected(lab: Lab, count: int) -> Iterator[None]:
    """Keep connections of the client to the VIP open; each has had an answer, so that the server knows its time."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            opened = stack.enter_context(lab.inside("client", lambda: socket.create_connection((VIP, 80), 5)))
            opened.sendall(b"GET /whoami HTTP/1.1\r\nHost: x\r\n\r\n")
            assert opened.recv(12) == b"HTTP/1.1 200"
        yield


def on_the_wire(control: Path) -> bytes:
    """Everything that the agent sends for the request, which a manager's relay passes on as it is."""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(str(control))
        asked.sendall(json.dumps({"command": "round_trips", "version": VERSION}).encode() + b"\n")
        asked.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: asked.recv(65536), b""))


@MODES
def test_clients_are_reported_by_prefix_and_no_address_leaves_the_host(
    lab: Lab, node: str, mode: str, dip: str, port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(lab, dip, port)
    with started(lab, node, "agent", "--mode", mode) as agent, running(lab, "mux1", "mux") as mux:
        wait_for_hosts(mux, dip)
        with connected(lab, CONNECTIONS - 15):  # too few for a group
            assert b"198.51" not in on_the_wire(agent.control)
        with connected(lab, CONNECTIONS):
            wire = on_the_wire(agent.control)
            latency = tmp_path / "latency.csv"
            assert lbmux(["steer", "collect", "pop1", str(latency), "--control", str(agent.control)]) == 0
            assert lbmux(["show", "round-trips", "--control", str(agent.control)]) == 0
    (line,) = json.loads(wire.splitlines()[0])["result"]["round_trips"]
    assert line["prefix"] == "198.51.100.0/24" and line["samples"] >= CONNECTIONS
    assert 0 < line["low_ms"] <= line["rtt_ms"] <= line["high_ms"] < 1000
    address = ip_address(CLIENT)
    assert CLIENT.encode() not in wire and address.packed not in wire and str(int(address)).encode() not in wire
    assert latency.read_text().splitlines()[1].startswith("198.51.100.0/24,pop1,")
    assert "198.51.100.0/24" in capsys.readouterr().out
