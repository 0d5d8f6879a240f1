"""HTTP/3 with aioquic at both ends: a client that changes its port in mid-connection keeps its server."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbmux.frames.xdp import detach
from lbmux.lab.lab import Lab
from lbmux.lab.topology import VIP
from tests.api.asking import ask
from tests.daemons.running_daemons import Daemon, configuration, running, service
from tests.daemons.web_lab import agent, line

pytestmark = pytest.mark.root

PORT, SERVER_PORT, ROTATION, MOVES = 443, 4433, 3, 8
IDLE_S = 1
BEYOND_S = IDLE_S + 2.0
"""A flow that is idle, and the time until a mux looks at flows of drained backends again."""
DRIVERS = pytest.mark.parametrize("driver", [("packet", "tun"), ("xdp", "xdp")], ids=["user space", "kernel"])
SERVERS = {"host1": ("10.1.1.2", "h1", "0a01"), "host2": ("10.1.2.2", "h2", "0a02")}
ROOT = Path(__file__).parents[2]


def peer(lab: Lab, node: str, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.daemons.quic_peer", *arguments]
    return lab.popen(node, command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


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
    result = json.loads(output)
    return set(result["names"]), len(set(result["ports"])), result["whole"]


def pool(backends: list[dict[str, object]]) -> dict[str, object]:
    quic, idle = {"rotation": ROTATION, "id_bytes": 2}, {"untrusted_s": IDLE_S, "udp_s": IDLE_S}
    return configuration(service("h3", PORT, backends, protocol="udp", quic=quic, idle=idle))


def options_of(driver: str) -> tuple[str, ...]:
    return ("--driver", driver, *(("--detach-on-exit",) if driver == "xdp" else ()))


class Kept:
    """A connection that lives until its input ends."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin and process.stdout
        self._input, self._output = process.stdin, process.stdout
        self.server = self._output.readline().strip()

    def ask(self, how: str = "ask") -> str:
        self._input.write(f"{how}\n")
        self._input.flush()
        return self._output.readline().strip()

    def in_use(self, mux: Daemon) -> None:
        """Ask five times a second for longer than a flow may be idle: the server stays, and counts as in use."""
        deadline = time.monotonic() + BEYOND_S
        while time.monotonic() < deadline:
            assert self.ask() == self.server
            assert not line(mux.control, self.server)["drained"], mux.log
            time.sleep(0.2)
        assert f"backend {self.server} of service h3 is drained" not in mux.log

    def close(self) -> None:
        self._input.close()


@DRIVERS
def test_a_drained_backend_has_flows_while_packets_name_it_by_connection_id(lab: Lab, driver: tuple[str, str]) -> None:
    """After the drain the client moves, so that only ids lead to the backend; then the file lacks the backend."""
    backends: list[dict[str, object]] = [
        {"name": name, "dip": address, "port": SERVER_PORT, "server_id": identifier}
        for address, name, identifier in SERVERS.values()
    ]
    lab.write_config(pool(backends))
    with (
        running(lab, "host1", "agent", *options_of(driver[1])),
        running(lab, "host2", "agent", *options_of(driver[1])),
        running(lab, "mux1", "mux", *options_of(driver[0])) as mux,
        peer(lab, "client", "keep", VIP, str(PORT)) as client,
    ):
        kept = Kept(client)
        ask(mux.control, "override", backend=kept.server, override="drain")
        assert kept.ask("move") == kept.server
        kept.in_use(mux)
        assert line(mux.control, kept.server)["state"] == "draining"
        lab.write_config(pool([one for one in backends if one["name"] != kept.server]))
        for control in (agent(lab, 1), agent(lab, 2), mux.control):
            ask(control, "reload")
        assert kept.ask("move") == kept.server
        kept.in_use(mux)
        assert line(mux.control, kept.server)["state"] == "removing"
        kept.close()
        mux.wait_for(f"backend {kept.server} of service h3 is removed")


@DRIVERS
def test_a_client_that_moves_keeps_its_server(lab: Lab, driver: tuple[str, str]) -> None:
    backends = [
        {"name": name, "dip": address, "port": SERVER_PORT, "server_id": identifier}
        for address, name, identifier in SERVERS.values()
    ]
    quic = {"rotation": ROTATION, "id_bytes": 2}
    lab.write_config(configuration(service("h3", PORT, backends, protocol="udp", quic=quic)))
    with (
        running(lab, "mux1", "mux", *options_of(driver[0])) as mux,
        running(lab, "host1", "agent", *options_of(driver[1])),
        running(lab, "host2", "agent", *options_of(driver[1])),
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
