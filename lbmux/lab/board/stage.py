"""A system under experiment: its lab, and what can be done to it while connections go on."""

import copy
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from lbmux.control.control_socket import ask, ask_stream
from lbmux.errors import ControlError, LabError
from lbmux.lab import processes
from lbmux.lab.board.scenarios import Scenario
from lbmux.lab.lab import Lab
from lbmux.lab.namespaces import PASS
from lbmux.lab.topology import VIP, Node
from lbmux.targets.bpf.syscall import Attach, load_program

DROP = bytes.fromhex("b700000001000000 9500000000000000")
"""An XDP program that drops everything: r0 = XDP_DROP; exit."""
SEED = "net/ipv4/fib_multipath_hash_seed"
NORMAL_TIMEOUT_S = 20.0
Backends = list[dict[str, Any]]


class Stage:
    """One scenario's lab, up."""

    def __init__(self, scenario: Scenario, lab: Lab) -> None:
        self.scenario, self.lab = scenario, lab
        self._hit = scenario.fronts[0]
        self._silent: set[str] = set()

    @property
    def backend(self) -> str:
        """The one that events are about."""
        return next(iter(self.scenario.backends))

    @property
    def front_is_backend(self) -> bool:
        return self._hit in self.scenario.backends.values()

    def start(self) -> None:
        """All programs but the spare front's."""
        for node in self.lab.topology.nodes:
            for program in node.programs:
                if (node.name, program.name) != (self.scenario.spare, self.scenario.front):
                    self.lab.start(node, program)
        self.wait_until_normal()

    def signal_front(self, number: signal.Signals) -> None:
        processes.kill(self.lab.process(self._hit, self.scenario.front), number)
        if number == signal.SIGCONT:
            self._silent.discard(self._hit)
        else:
            self._silent.add(self._hit)

    def start_front(self) -> None:
        self._wait(lambda: not self._runs(self._hit), f"the end of {self._hit}'s {self.scenario.front}")
        self._start(self._hit)
        self._silent.discard(self._hit)

    def start_spare(self) -> None:
        self._start(self.scenario.spare)

    def stop_spare(self) -> None:
        processes.end([self.lab.process(self.scenario.spare, self.scenario.front)])

    def cut_link(self, node: str = "") -> None:
        """Nothing more is heard from a node, the front that is hit unless said."""
        self._filter(node or self._hit, DROP)

    def mend_link(self, node: str = "") -> None:
        self._filter(node or self._hit, PASS)

    def reseed(self) -> None:
        def write() -> None:
            Path("/proc/sys", SEED).write_text(str(random.getrandbits(31) | 1))

        for router in self.scenario.ways:
            self.lab.inside(router, write)

    def kill_server(self) -> None:
        processes.kill(self.lab.process(self.scenario.backends[self.backend], self.scenario.server), signal.SIGKILL)

    def start_server(self) -> None:
        node = self.lab.topology.node(self.scenario.backends[self.backend])
        self.lab.start(node, next(program for program in node.programs if program.name == self.scenario.server))

    def ports_at_backend(self) -> set[int]:
        """The client's ports of the flows that the muxes have sent to the backend."""
        return {
            flow["source_port"]
            for node in self._reachable(self.scenario.front)
            for part in ask_stream(self._socket(node), "flows")
            for flow in part["flows"] if flow["backend"] == self.backend
        }  # fmt: skip

    def order(self, what: str | None) -> None:
        """Of the backend, to every front that has it: drain, disable, or None to have it serve again."""
        asked = [self._hit] if self.front_is_backend else self._reachable(self.scenario.front)
        for node in asked:
            ask(self._socket(node), "order", backend=self.backend, order=what, service=None)

    def change(self, changed: Callable[[Backends], Backends]) -> None:
        """The service's backends in the file; then agents load it, and then muxes."""
        config = copy.deepcopy(self.lab.config_in_force)
        service = config["services"][0]
        service["backends"] = changed(service["backends"])
        self.lab.write_config(config)
        for program in ("agent", self.scenario.front):
            for node in self._reachable(program):
                ask(self._socket(node), "reload")

    def restore_config(self) -> None:
        wanted = self.lab.topology.config["services"][0]["backends"]
        self.change(lambda backends: wanted)

    def wait_until_normal(self) -> None:
        """Every front is a way to the VIP, and says that every backend is up."""
        for router, wanted in self.scenario.ways.items():
            self._wait(lambda: self.ways(router) == wanted, f"{router}'s ways to the VIP")  # noqa: B023
        self._wait(lambda: all(self._healthy(node) for node in self.scenario.fronts), "healthy backends")
        if self.scenario.active is not None:
            node, address = self.scenario.active
            self._wait(lambda: self._has_address(node, address), f"{node} with {address}")

    def ways(self, router: str) -> frozenset[str]:
        """The next hops to the VIP that a router's kernel has."""
        ran = self.lab.run(router, ["ip", "-j", "route", "show", f"{VIP}/32"], capture_output=True, text=True)
        routes: list[dict[str, Any]] = json.loads(ran.stdout or "[]")
        return frozenset(hop["gateway"] for route in routes for hop in route.get("nexthops", [route]))

    def _has_address(self, node: str, address: str) -> bool:
        ran = self.lab.run(node, ["ip", "-j", "address", "show"], capture_output=True, text=True)
        return any(one["local"] == address for link in json.loads(ran.stdout) for one in link["addr_info"])

    def _healthy(self, node: str) -> bool:
        try:
            lines = ask(self._socket(node), "health")["health"]
        except ControlError:
            return False
        return all(line["state"] == "up" for line in lines)

    def _filter(self, node: str, program: bytes) -> None:
        """What the other end of a node's link does with what comes from there."""
        port = next(
            port for link in self.lab.topology.links
            for port, other in ((link.a, link.b), (link.b, link.a)) if other.node == node
        )  # fmt: skip

        def attach() -> None:
            loaded = load_program(Attach.XDP, program, "lbmux_lab").descriptor
            with IPRoute() as ip:
                ip.link("set", index=ip.link_lookup(ifname=port.interface)[0], xdp_fd=loaded)
            os.close(loaded)

        self.lab.inside(port.node, attach)

    def _reachable(self, program: str) -> list[str]:
        """Nodes where it runs and answers."""
        return [
            node.name for node in self.lab.topology.nodes if node.name not in self._silent and self._has(node, program)
        ]

    def _has(self, node: Node, program: str) -> bool:
        return any(one.name == program for one in node.programs) and self._runs(node.name, program)

    def _runs(self, node: str, program: str = "") -> bool:
        try:
            return bool(self.lab.process(node, program or self.scenario.front))
        except LabError:
            return False

    def _start(self, node: str) -> None:
        found = self.lab.topology.node(node)
        self.lab.start(found, next(one for one in found.programs if one.name == self.scenario.front))

    def _socket(self, node: str) -> Path:
        return self.lab.directory / f"{node}.sock"

    def _wait(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + NORMAL_TIMEOUT_S
        while not holds():
            if time.monotonic() > deadline:
                raise LabError("", f"{self.scenario.name}: no {what} within {NORMAL_TIMEOUT_S:.0f} s")
            time.sleep(0.02)
