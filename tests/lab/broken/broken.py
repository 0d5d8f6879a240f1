"""A lab that is broken on purpose, one thing at a time, and what the tools say of it.

A case breaks something, looks for the text that an operator would look for, and repairs it.  Files come in any order.
"""

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scapy.layers.inet import IP, TCP

from lbmux.addresses import mac_from_int
from lbmux.lab import namespaces, processes
from lbmux.lab.lab import Lab
from lbmux.lab.topology import VIP
from lbmux.linux.offloads import set_features
from lbmux.tools.doctor.finding import Finding
from lbmux.tools.doctor.node_state import NodeState, Role
from lbmux.tools.doctor.run_checks import examine
from lbmux.tools.explain_mux import explain_live
from lbmux.tools.packet_text import ClientPacket
from tests.api.asking import ask
from tests.lbmux_command import Command, beside, lbmux

SOON_S = 5.0
CLIENT = "198.51.100.2"
WEB = f"{CLIENT}:40000 > {VIP}:80/tcp"


@dataclass
class Broken:
    """The lab, and what the tools say in it."""

    lab: Lab
    plain: dict[str, Any] = field(default_factory=dict)

    def socket(self, node: str) -> Path:
        return self.lab.directory / f"{node}.sock"

    def command(self, node: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return lbmux(*arguments, namespace=self.lab.namespace(node))

    def doctor(self, node: str, *peers: str, file: Path | None = None) -> "Diagnosis":
        """Run the doctor in a thread in the node's namespace, which saves a second of starting Python."""
        role: Role = {"mux": "mux", "host": "agent", "router": "router"}[self.lab.topology.node(node).role]  # type: ignore
        file = self.lab.config if role == "router" else file
        state = NodeState(role, self.socket(node), file, tuple(self.socket(peer) for peer in peers))
        return Diagnosis(self.lab.inside(node, lambda: list(examine(state))))

    def sh(self, node: str, command: str) -> str:
        return str(self.lab.run(node, ["sh", "-ec", command], capture_output=True, text=True, check=True).stdout)

    def explain(self, packet: str, length: int | None = None, node: str = "mux1") -> str:
        explanation = explain_live(ClientPacket.parse(packet, length=length), self.socket(node))
        return "\n".join([*(step.found for step in explanation.steps), explanation.hint])

    @contextlib.contextmanager
    def watched(self, command: str, *options: str, node: str = "mux1") -> Iterator[Command]:
        """`lbmux trace` or `capture` while packets come."""
        with beside(command, "--control", str(self.socket(node)), *options) as client:
            client.wait_for("tracing the")
            yield client

    def trace(self, filter: str, send: Callable[[], None]) -> str:
        """What `lbmux trace` says of one frame, of those that ``send`` sends."""
        with self.watched("trace", "-n", "1", filter) as client:
            send()
            return client.completed().stdout

    def syns(self, destination: str, length: int = 40) -> None:
        """SYNs of enough flows for each mux to have some."""

        def send() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
                for port in range(50000, 50032):
                    packet = IP(src=CLIENT, dst=destination) / TCP(sport=port, dport=80, flags="S")
                    sock.sendto(bytes(packet / bytes(length - len(packet))), (destination, 0))

        self.lab.inside("client", send)

    def mac(self, node: str) -> str:
        return mac_from_int(self.lab.inside(node, lambda: namespaces.link_mac("eth0")))

    def reload(self, *nodes: str) -> None:
        for node in nodes:
            ask(self.socket(node), "reload")

    @contextlib.contextmanager
    def config(self, change: Callable[[dict[str, Any]], None], *nodes: str) -> Iterator[None]:
        """Another configuration in these nodes only: the file is the old one again while it lasts."""
        other = json.loads(json.dumps(self.plain))
        change(other)
        try:
            self.lab.write_config(other)
            self.reload(*nodes)
            self.lab.write_config(self.plain)
            yield
        finally:
            self.lab.write_config(self.plain)
            self.reload(*nodes)

    @contextlib.contextmanager
    def without(self, node: str, program: str) -> Iterator[None]:
        """One program of a node stopped, and started again."""
        processes.end([self.lab.process(node, program)])
        try:
            yield
        finally:
            known = self.lab.topology.node(node)
            self.lab.start(known, next(one for one in known.programs if one.name == program), forked=True)

    @contextlib.contextmanager
    def changed(self, node: str, breaks: str, repairs: str) -> Iterator[None]:
        try:
            self.sh(node, breaks)
            yield
        finally:
            self.sh(node, repairs)

    @contextlib.contextmanager
    def offload(self, node: str, interface: str, **wanted: bool) -> Iterator[None]:
        before = self.lab.inside(node, lambda: set_features(interface, wanted))
        try:
            yield
        finally:
            self.lab.inside(node, lambda: set_features(interface, before))

    @contextlib.contextmanager
    def sysctl(self, node: str, name: str, value: str) -> Iterator[None]:
        before = self.sh(node, f"sysctl -n {name}").strip()
        with self.changed(node, f"sysctl -q {name}={value}", f"sysctl -q {name}={before}"):
            yield


@dataclass
class Diagnosis:
    findings: list[Finding]

    def says(self, check: str, text: str, state: str = "fault") -> bool:
        """Return whether a check found this and gave a hint."""
        return any(
            (finding.check, finding.state) == (check, state) and text in finding.seen and finding.hint != ""
            for finding in self.findings
        )

    @property
    def faults(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.state == "fault"]


def until(test: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not test():
        assert time.monotonic() < deadline
        time.sleep(0.02)
