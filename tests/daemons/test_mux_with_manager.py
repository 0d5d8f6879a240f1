"""Muxes that follow a manager: all are processes, and packets go where the manager's revision says."""

import contextlib
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from scapy.layers.inet import IP, TCP

from lbmux.cli.main import run
from lbmux.lab.fork_server import ForkedProcess
from lbmux.lab.lab import Lab
from lbmux.lab.namespaces import set_route
from lbmux.lab.topology import VIP, Route
from lbmux.tools.doctor.pool_checks import digests
from tests.daemons.running_daemons import READY, START_S, Wire, configuration, send, service
from tests.lbmux_command import LBMUX

pytestmark = pytest.mark.root
URL = "https://10.0.1.2:7443"
H1, H2 = ({"name": f"h{n}", "dip": f"10.1.{n}.2", "port": 8080} for n in (1, 2))


def syn(source_port: int) -> bytes:
    return bytes(IP(src="198.51.100.2", dst="192.0.2.1") / TCP(sport=source_port, dport=80, flags="S"))


class Node:
    """A mux's node, where the manager may run too."""

    def __init__(self, lab: Lab, directory: Path, capsys: pytest.CaptureFixture[str], name: str = "mux1") -> None:
        self._lab, self.directory, self._capsys, self.name = lab, directory, capsys, name
        files = {"--token-file": directory / "m1" / "admin.token", "--manager-ca": directory / "m1" / "ca.crt"}
        self.access = ["--manager", URL, *(str(word) for pair in files.items() for word in pair)]

    def start(self, *words: str) -> ForkedProcess:
        log = self.directory / f"{self.name}-{words[0]}.log"
        with log.open("wb") as file:
            return self._lab.fork(self.name, [*LBMUX, *words], file)

    def log(self, name: str) -> str:
        return (self.directory / f"{self.name}-{name}.log").read_text()

    def run(self, *words: str) -> str:
        """Return the output of a command in this node."""
        self._capsys.readouterr()
        assert self._lab.inside(self.name, lambda: run(words)) == 0, self._capsys.readouterr().err
        return self._capsys.readouterr().out

    @contextlib.contextmanager
    def running(self, ready: Any, *words: str) -> Iterator[None]:
        process = self.start(*words)
        deadline = time.monotonic() + START_S
        try:
            while not ready.search(self.log(words[0])):
                assert process.poll() is None and time.monotonic() < deadline, self.log(words[0])
                time.sleep(0.02)
            yield
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0, self.log(words[0])
        finally:
            process.kill()
            process.wait()

    def apply(self, *backends: dict[str, Any], options: tuple[str, ...] = ("--force",), **more: Any) -> None:
        (self.directory / "services.yaml").write_text(
            yaml.safe_dump(configuration(service("web", 80, [*backends], **more)))
        )
        self.run("apply", str(self.directory / "services.yaml"), *options, *self.access)

    @contextlib.contextmanager
    def manager(self) -> Iterator[None]:
        own = str(self.directory / "m1")
        self.run("manager", "init", "--store", own, "--state", own, "--name", "m1", "--address", "10.0.1.2")
        with self.restarted_manager():
            yield

    @contextlib.contextmanager
    def restarted_manager(self) -> Iterator[None]:
        """The manager of a pool that exists."""
        own = str(self.directory / "m1")
        words = ["--store", own, "--state", own, "--listen", "10.0.1.2:7443", "--advertise", URL]
        with self.running(re.compile(r"primary \(epoch"), "manager", *words):
            yield

    @contextlib.contextmanager
    def mux(self) -> Iterator[None]:
        identity = str(self.directory / self.name)
        words = ["--manager", URL, "--state", identity, "-i", "eth0", "--driver", "packet"]
        words += ["--control", str(self.directory / f"{self.name}.sock")]
        (self.directory / "join").write_text(self.run("manager", "join-token", self.name, *self.access))
        self.run("join", "--manager", URL, "--join-token-file", str(self.directory / "join"), "--state", identity)
        with self.running(READY["mux"], "mux", *words):
            yield

    def wait_for(self, pattern: str, *words: str) -> None:
        """Wait until the output of a command matches a pattern."""
        deadline = time.monotonic() + START_S
        while not re.search(pattern, said := self.run(*words, *self.access)):
            assert time.monotonic() < deadline, said
            time.sleep(0.05)


def test_packets_follow_the_manager(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = Node(lab, tmp_path, capsys)
    with node.manager():
        node.apply(H1)
        with node.mux():
            with Wire(lab, "host1") as wire:
                send(lab, "client", syn(40000))
                assert wire.frames(1, tunnelled_from=40000)
            node.apply(H2)
            node.wait_for(r"mux1 +mux +2 ", "show", "nodes")
            with Wire(lab, "host2") as wire:
                send(lab, "client", syn(40001))
                assert wire.frames(1, tunnelled_from=40001)
            assert "1 of 1" in node.run("show", "revisions", *node.access)


@contextlib.contextmanager
def traffic(lab: Lab) -> Iterator[None]:
    """Send new flows to both muxes, 200 a second."""
    stop = threading.Event()

    def send_flows() -> None:
        port = 20000
        while not stop.wait(0.1):
            send(lab, "client", *(syn(port + n) for n in range(20)))
            port += 20

    both, one = (Route(f"{VIP}/32", hops) for hops in (("10.0.1.2", "10.0.2.2"), ("10.0.1.2",)))
    lab.inside("router", lambda: set_route(both))
    thread = threading.Thread(target=send_flows)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        lab.inside("router", lambda: set_route(one))


def test_a_canary_lets_a_sound_revision_through_and_rolls_one_back_that_drops(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node, other = Node(lab, tmp_path, capsys), Node(lab, tmp_path, capsys, "mux2")
    soak, nodes = ("--canary", "mux1", "--soak", "1s", "--force"), ("show", "nodes")
    with node.manager():
        node.apply(H1)
        with node.mux(), other.mux(), traffic(lab):
            node.apply(H1, H2, options=(*soak, "--wait"))
            for mux in ("mux1", "mux2"):
                node.wait_for(rf"{mux} +mux +2 ", *nodes)
            node.apply(H1, H2, options=("--canary", "mux1", "--soak", "60s", "--force"), deny=["198.51.100.0/24"])
            for mux in ("mux1", "mux2"):
                node.wait_for(rf"{mux} +mux +4 ", *nodes)
            events = node.run("show", "events", *node.access)
            assert "canary mux1 of revision 2 passed its soak: the revision goes to all nodes" in events
            assert re.search(
                r"canary mux1 of revision 3: \d+ drops in \d+ packets \(\S+\), the other muxes 0 in", events
            )


def test_tables_are_equal_once_every_node_has_acknowledged(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node, other, seen = Node(lab, tmp_path, capsys), Node(lab, tmp_path, capsys, "mux2"), set[str | None]()
    with node.manager():
        node.apply(H1)
        with node.mux(), other.mux():
            for backends in ([H1, H2], [H1, H2 | {"weight": 5}], [H2]):
                node.apply(*backends, options=("--force", "--wait"))
                one, two = (digests(tmp_path / f"{mux}.sock") for mux in ("mux1", "mux2"))
                assert one == two
                seen |= {*one.values()}
    assert len(seen) == 3 and None not in seen
