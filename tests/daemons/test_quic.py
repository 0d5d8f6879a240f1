"""HTTP/3 with aioquic at both ends: a client that changes its port in mid-connection keeps its server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbmux.frames.xdp import detach
from lbmux.lab.lab import Lab
from lbmux.lab.topology import VIP
from tests.api.asking import ask
from tests.daemons.running_daemons import configuration, running, service

pytestmark = pytest.mark.root

PORT, SERVER_PORT, ROTATION, MOVES = 443, 4433, 3, 8
SERVERS = {"host1": ("10.1.1.2", "h1", "0a01"), "host2": ("10.1.2.2", "h2", "0a02")}
ROOT = Path(__file__).parents[2]


def peer(lab: Lab, node: str, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.daemons.quic_peer", *arguments]
    return lab.popen(node, command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module", autouse=True)
def servers(lab: Lab) -> Iterator[None]:
    started = [
        peer(lab, node, "serve", address, str(SERVER_PORT), name, str(ROTATION), identifier)
        for node, (address, name, identifier) in SERVERS.items()
    ]
    try:
        assert [process.stdout and process.stdout.readline() for process in started] == ["ready\n"] * len(started)
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
        for node in ("mux1", *SERVERS):
            lab.inside(node, lambda: detach("eth0"))


def download(lab: Lab) -> tuple[set[str], int, bool]:
    """(servers that answered, ports that the client went on from, whether the download was whole)."""
    with peer(lab, "client", "ask", VIP, str(PORT), str(MOVES)) as client:
        output, _ = client.communicate(timeout=40)
    said = json.loads(output)
    return set(said["names"]), len(set(said["ports"])), said["whole"]


@pytest.mark.parametrize("driver", [("packet", "tun"), ("xdp", "xdp")], ids=["user space", "kernel"])
def test_a_client_that_moves_keeps_its_server(lab: Lab, driver: tuple[str, str]) -> None:
    backends = [
        {"name": name, "dip": address, "port": SERVER_PORT, "server_id": identifier}
        for address, name, identifier in SERVERS.values()
    ]
    quic = {"rotation": ROTATION, "id_bytes": 2}
    lab.write_config(configuration(service("h3", PORT, backends, protocol="udp", quic=quic)))
    options = [("--driver", name, *(["--detach-on-exit"] if name == "xdp" else [])) for name in driver]
    with (
        running(lab, "mux1", "mux", *options[0]) as mux,
        running(lab, "host1", "agent", *options[1]),
        running(lab, "host2", "agent", *options[1]),
    ):
        met = set()
        for _ in range(3):
            names, ports, whole = download(lab)
            assert (len(names), ports, whole) == (1, MOVES, True)
            met |= names
        looked_up = ask(mux.control, "counters")["lookups"]
        assert looked_up["server_id"] > 3 * MOVES
        assert met <= {"h1", "h2"}


def test_ids_of_another_configuration_go_by_the_flow_table(lab: Lab) -> None:
    backends = [{"name": name, "dip": address, "port": SERVER_PORT} for address, name, _ in SERVERS.values()]
    lab.write_config(configuration(service("h3", PORT, backends, protocol="udp", quic={"rotation": 0, "id_bytes": 2})))
    with running(lab, "mux1", "mux") as mux, running(lab, "host1", "agent"), running(lab, "host2", "agent"):
        with peer(lab, "client", "ask", VIP, str(PORT), "0") as client:
            output, _ = client.communicate(timeout=40)
        assert json.loads(output)["names"][0] in {"h1", "h2"}
        looked_up = ask(mux.control, "counters")["lookups"]
        assert looked_up["server_id"] == 0 and looked_up["hit"] > 0
