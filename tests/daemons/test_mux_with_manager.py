"""A mux that follows a manager: both are processes, and packets go where the manager's revision says."""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from scapy.layers.inet import IP, TCP

from lbmux.cli.main import run
from lbmux.lab.lab import Lab
from tests.daemons.running_daemons import READY, START_S, Wire, configuration, send, service

pytestmark = pytest.mark.root
URL = "https://127.0.0.1:7443"
H1, H2 = ({"name": f"h{n}", "dip": f"10.1.{n}.2", "port": 8080} for n in (1, 2))


def syn(source_port: int) -> bytes:
    return bytes(IP(src="198.51.100.2", dst="192.0.2.1") / TCP(sport=source_port, dport=80, flags="S"))


class Node:
    """The mux's node: the manager runs there too."""

    def __init__(self, lab: Lab, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._lab, self.directory, self._capsys = lab, directory, capsys
        files = {"--token-file": directory / "m1" / "admin.token", "--manager-ca": directory / "m1" / "ca.crt"}
        self.access = ["--manager", URL, *(str(word) for pair in files.items() for word in pair)]

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        log = self.directory / f"{words[0]}.log"
        with log.open("wb") as file:
            return self._lab.popen("mux1", [sys.executable, "-m", "lbmux.cli.main", *words], stdout=file, stderr=file)

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def run(self, *words: str) -> str:
        """Return the output of a command in this node."""
        self._capsys.readouterr()
        assert self._lab.inside("mux1", lambda: run(words)) == 0, self._capsys.readouterr().err
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
            process.terminate()
            assert process.wait(10) == 0, self.log(words[0])
        finally:
            process.kill()
            process.wait()

    def apply(self, *backends: dict[str, Any]) -> None:
        (self.directory / "services.yaml").write_text(yaml.safe_dump(configuration(service("web", 80, [*backends]))))
        self.run("apply", str(self.directory / "services.yaml"), "--force", *self.access)


def test_packets_follow_the_manager(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = Node(lab, tmp_path, capsys)
    own, identity = str(tmp_path / "m1"), str(tmp_path / "mux1")
    manager = ["--store", own, "--state", own, "--listen", "127.0.0.1:7443", "--advertise", URL]
    mux = ["--manager", URL, "--state", identity, "-i", "eth0", "--driver", "packet"]
    mux += ["--control", str(tmp_path / "mux.sock")]
    node.run("manager", "init", "--store", own, "--state", own, "--name", "m1", "--address", "127.0.0.1")
    with node.running(re.compile(r"primary \(epoch"), "manager", *manager):
        node.apply(H1)
        (tmp_path / "join").write_text(node.run("manager", "join-token", "mux1", *node.access))
        node.run("join", "--manager", URL, "--join-token-file", str(tmp_path / "join"), "--state", identity)
        with node.running(READY["mux"], "mux", *mux):
            with Wire(lab, "host1") as wire:
                send(lab, "client", syn(40000))
                assert wire.frames(1, tunnelled_from=40000)
            node.apply(H2)
            deadline = time.monotonic() + START_S
            while not re.search(r"mux1 +mux +2 ", listed := node.run("show", "nodes", *node.access)):
                assert time.monotonic() < deadline, listed
            with Wire(lab, "host2") as wire:
                send(lab, "client", syn(40001))
                assert wire.frames(1, tunnelled_from=40001)
            assert "1 of 1" in node.run("show", "revisions", *node.access)
