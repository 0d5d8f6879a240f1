"""Set-ups that are broken on purpose, one after another in one lab: each time a tool names the cause, and then no more.

A case breaks one thing, asks, and mends it; what is asked for is text that a person would look for.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lbmux.control.control_socket import ask
from lbmux.control.offloads import set_features
from lbmux.lab import processes
from lbmux.lab.lab import Lab
from lbmux.lab.topology import VIP, ananta
from lbmux.tools.doctor.examine import examine
from lbmux.tools.doctor.finding import Finding
from lbmux.tools.doctor.situation import Role, Situation
from lbmux.tools.explain import Packet, explain_live

pytestmark = pytest.mark.root

SOON_S = 5.0


@dataclass
class Broken:
    """The lab, and what the tools say in it."""

    lab: Lab
    plain: dict[str, Any] = field(default_factory=dict)

    def socket(self, node: str) -> Path:
        return self.lab.directory / f"{node}.sock"

    def command(self, node: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "lbmux.cli.main", *arguments]
        return self.lab.run(node, command, capture_output=True, text=True, timeout=30)

    def doctor(self, node: str, *peers: str, file: Path | None = None) -> "Diagnosis":
        """In a thread there, which is what `lbmux doctor` does, less a second of starting Python."""
        role: Role = {"mux": "mux", "host": "agent", "router": "router"}[self.lab.topology.node(node).role]  # type: ignore
        file = self.lab.config if role == "router" else file
        situation = Situation(role, self.socket(node), file, tuple(self.socket(peer) for peer in peers))
        return Diagnosis(self.lab.inside(node, lambda: list(examine(situation))))

    def sh(self, node: str, command: str) -> str:
        return str(self.lab.run(node, ["sh", "-ec", command], capture_output=True, text=True, check=True).stdout)

    def explain(self, packet: str, length: int | None = None, node: str = "mux1") -> str:
        found = explain_live(Packet.parse(packet, length=length), self.socket(node))
        return "\n".join([*(step.found for step in found.steps), found.mend])

    def reload(self, *nodes: str) -> None:
        for node in nodes:
            ask(self.socket(node), "reload")

    @contextlib.contextmanager
    def config(self, change: Callable[[dict[str, Any]], None], *nodes: str) -> Iterator[None]:
        """Another configuration in these nodes; the file itself is the old one again while it lasts."""
        other = json.loads(json.dumps(self.plain))
        change(other)
        self.lab.write_config(other)
        try:
            self.reload(*nodes)
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
            self.lab.start(known, next(one for one in known.programs if one.name == program))

    @contextlib.contextmanager
    def changed(self, node: str, breaks: str, mends: str) -> Iterator[None]:
        try:
            self.sh(node, breaks)
            yield
        finally:
            self.sh(node, mends)

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
        """Whether a check found this, and said how to mend it."""
        return any(
            (finding.check, finding.state) == (check, state) and text in finding.seen and finding.mend != ""
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


@pytest.fixture(scope="module")
def pool() -> Iterator[Broken]:
    lab = Lab(ananta(), f"ebroken{os.getpid()}", "packet")
    try:
        lab.up()
        yield Broken(lab, lab.config_in_force)
    finally:
        lab.down()


def test_a_sound_lab_has_no_fault(pool: Broken) -> None:
    for node in ("mux1", "host1", "host3", "router"):
        found = pool.doctor(node)
        assert found.faults == [], node
    assert pool.doctor("mux1", "mux2").faults == []


def test_the_command_prints_a_table_or_json_and_exits_by_what_it_found(pool: Broken) -> None:
    asked = ("doctor", "--control", str(pool.socket("host1")))
    fine = pool.command("host1", *asked, "-j")
    assert (fine.returncode, json.loads(fine.stdout)["role"]) == (0, "agent")
    with pool.offload("host1", "eth0", gro=True):
        broken = pool.command("host1", *asked, "--quiet")
    assert broken.returncode == 1
    assert "gro on at eth0" in broken.stdout and "to mend it: ethtool -K eth0 gro off" in broken.stdout
    assert "\nok " not in broken.stdout


def test_wrong_mac(pool: Broken) -> None:
    with pool.changed(
        "mux1",
        "ip neighbour replace 10.0.1.1 lladdr 02:00:00:00:00:99 dev eth0 nud noarp",
        "ip neighbour del 10.0.1.1 dev eth0",
    ):
        until(lambda: "02:00:00:00:00:99" in pool.explain(f"198.51.100.2:40000 > {VIP}:80/tcp"))
        assert pool.doctor("mux1").says("next hop", "wrong MAC: frames for host 10.1.1.2 go to 02:00:00:00:00:99")


def test_no_route(pool: Broken) -> None:
    with pool.changed("mux1", "ip route del default", "ip route add default via 10.0.1.1"):
        until(lambda: "MAC address is not known" in pool.explain(f"198.51.100.2:40000 > {VIP}:80/tcp"))
        assert pool.doctor("mux1").says("next hop", "no route to host 10.1.1.2")


def test_vip_not_configured(pool: Broken) -> None:
    assert "no service has the VIP 192.0.2.77" in pool.explain("198.51.100.2:40000 > 192.0.2.77:80/tcp")


def test_backend_down(pool: Broken) -> None:
    with pool.changed("router", "ip link set to-host2 down", "ip link set to-host2 up"):
        assert pool.doctor("mux1").says("backend", "web/h2 at 10.1.2.2: backend down: ")


def test_agent_not_running(pool: Broken) -> None:
    with pool.without("host1", "agent"):
        assert pool.doctor("mux1").says("backend", "web/h1 at 10.1.1.2: agent not running")


def test_mtu(pool: Broken) -> None:
    with pool.changed("router", "ip link set to-host1 mtu 1400", "ip link set to-host1 mtu 1500"):
        assert pool.doctor("mux1").says("MTU", "MTU to host 10.1.1.2 is 1400, says 10.0.1.1")
    pool.sh("mux1", "ip route flush cache")


def test_strict_reverse_path_filter(pool: Broken) -> None:
    with pool.sysctl("router", "net.ipv4.conf.to-host1.rp_filter", "1"):
        assert pool.doctor("router").says("rp_filter", "strict on to-host1")
        assert pool.doctor("mux1").says("backend", "web/h1 at 10.1.1.2: no answer through the tunnel")
