"""The system under test: its lab, and the actions that events perform on it while connections run."""

import contextlib
import copy
import json
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from lbmux.api.control_client import ControlClient
from lbmux.api.requests import GetCounters, GetFlows, GetHealth, Override, Reload
from lbmux.backends.overrides import OverriddenState
from lbmux.errors import ControlError, LabError
from lbmux.frames.xdp import detach
from lbmux.lab import processes
from lbmux.lab.altered_program import step
from lbmux.lab.https_users import Clients, users
from lbmux.lab.lab import Lab
from lbmux.lab.namespaces import remove_address, steer_packets
from lbmux.lab.scoreboard.flood import flood
from lbmux.lab.scoreboard.other_vip import OtherVip
from lbmux.lab.scoreboard.scenarios import Scenario
from lbmux.lab.systems.facebook_global import NAME
from lbmux.lab.topology import ECHO_PORT, VIP, Node
from lbmux.lab.topology_builder import PASS
from lbmux.lab.traffic_client import Client, reporting
from lbmux.targets.bpf.syscall import Attach, load_program

DROP = bytes.fromhex("b700000001000000 9500000000000000")
"""An XDP program that drops all frames: r0 = XDP_DROP; exit."""
HAVE_PROGRAMS = ("edge", "mux", "host")
"""Roles of nodes that may have XDP programs of their own."""
SEED = "net/ipv4/fib_multipath_hash_seed"
NORMAL_TIMEOUT_S = 20.0
MEASURED_S = 0.5
SPEAKERS = ("bird", "exabgp")
FILLER = "filler"
Config = dict[str, Any]
Backends = list[dict[str, Any]]


class SystemUnderTest:
    """One scenario's lab, up."""

    def __init__(self, scenario: Scenario, lab: Lab) -> None:
        self.scenario, self.lab = scenario, lab
        self._hit, self._backend = scenario.forwarders[0], next(iter(scenario.backends), "")
        self._silent: set[str] = set()
        self.other_vip = OtherVip(self)

    def aim(self, forwarder: str, backend: str) -> None:
        """Have later events act on this forwarder and this backend instead of the first ones."""
        self._hit, self._backend = forwarder, backend

    @property
    def backend(self) -> str:
        """The backend that events act on."""
        return self._backend

    @property
    def host(self) -> str:
        """The backend's host."""
        return self.scenario.backends[self._backend]

    @property
    def forwarder_is_backend(self) -> bool:
        return self._hit in self.scenario.backends.values()

    def start(self) -> None:
        """Start all programs except the spare forwarder."""
        self.lab.start_programs(but=(self.scenario.spare, self.scenario.forwarder))
        self.wait_until_normal()

    def signal_forwarder(self, number: signal.Signals) -> None:
        processes.kill(self.lab.process(self._hit, self.scenario.forwarder), number)
        if number == signal.SIGCONT:
            self._silent.discard(self._hit)
        else:
            self._silent.add(self._hit)

    def start_forwarder(self) -> None:
        self.wait_for(lambda: not self._runs(self._hit), f"the end of {self._hit}'s {self.scenario.forwarder}")
        self._start(self._hit)
        self._silent.discard(self._hit)

    def start_spare(self) -> None:
        self._start(self.scenario.spare)

    def stop_spare(self) -> None:
        processes.end([self.lab.process(self.scenario.spare, self.scenario.forwarder)])

    def cut_link(self, node: str = "") -> None:
        """Drop everything that comes from a node; default the forwarder that events act on."""
        self._filter(node or self._hit, DROP)

    def restore_link(self, node: str = "") -> None:
        self._filter(node or self._hit, PASS)

    def lose_forwarder(self) -> None:
        self._silent.add(self._hit)
        self._lose(self._hit)
        if self.scenario.active is not None and self._has_address(*self.scenario.active):
            interface, prefix = self.lab.topology.port(self._hit).interface, f"{self.scenario.active[1]}/24"
            self.lab.inside(self._hit, partial(remove_address, interface, prefix))

    def return_forwarder(self) -> None:
        self._return(self._hit)
        self._silent.discard(self._hit)

    def lose_host(self) -> None:
        self._lose(self.host)

    def return_host(self) -> None:
        self._return(self.host)

    def _lose(self, node: str) -> None:
        """Fail a machine: cut its links, kill its processes, and detach its XDP programs."""
        self.cut_link(node)
        for process in (one for one in self.lab.processes if one.node == node):
            processes.kill(process, signal.SIGKILL)
        for port in self.lab.topology.ports(node):
            self.lab.inside(node, partial(detach, port.interface))

    def _return(self, node: str) -> None:
        """Restart the machine's programs and restore its links."""
        programs = self.lab.topology.node(node).programs
        self.wait_for(lambda: not any(self._runs(node, program.name) for program in programs), f"end of {node}")
        self.restore_link(node)
        for program in programs:
            self.lab.start(self.lab.topology.node(node), program)

    def reseed(self) -> None:
        def write() -> None:
            Path("/proc/sys", SEED).write_text(str(random.getrandbits(31) | 1))

        for router in self.scenario.next_hops:
            self.lab.inside(router, write)

    def steer(self, cpu: int | None) -> None:
        """Have all packets pass routers and muxes on one CPU of those that this process may use; None: on any."""
        for router in self.scenario.next_hops:
            interfaces = [port.interface for port in self.lab.topology.ports(router)]
            steer_packets(self.lab.namespace(router), interfaces, cpu)

    def flood(self) -> None:
        """Flood the VIP from the client with packets that belong to no connection."""
        self.lab.inside("client", lambda: flood(VIP, ECHO_PORT))

    def usual_pps(self) -> float:
        """Return the packets per second that the busiest forwarder gets now."""
        counts, begun = [self._received(node) for node in self.scenario.forwarders], time.monotonic()
        time.sleep(MEASURED_S)
        after = [self._received(node) for node in self.scenario.forwarders]
        seconds = time.monotonic() - begun
        return max(new - old for old, new in zip(counts, after, strict=True)) / seconds

    def _received(self, node: str) -> int:
        return sum(line.packets for line in self.client(node).ask(GetCounters()).verdicts)

    def signal_agent(self, number: signal.Signals) -> None:
        """Signal the agent of the first backend's host, and wait until it has ended."""
        host = self.host
        processes.kill(self.lab.process(host, "agent"), number)
        self.wait_for(lambda: not self._runs(host, "agent"), f"the end of {host}'s agent")

    def freeze_agent(self) -> None:
        processes.kill(self.lab.process(self.host, "agent"), signal.SIGSTOP)
        self._silent.add(self.host)

    def thaw_agent(self) -> None:
        processes.kill(self.lab.process(self.host, "agent"), signal.SIGCONT)
        self._silent.discard(self.host)

    def kill_speaker(self) -> None:
        """Kill the forwarder's BGP speaker, which its daemon starts again."""
        daemon = self.lab.process(self._hit, self.scenario.forwarder)
        for pid in processes.descendants(daemon.pid):
            if processes.name_of(pid) in SPEAKERS:
                os.kill(pid, signal.SIGKILL)

    def fill_disk(self) -> None:
        """Fill the small disk that the forwarder has its state on (lbmux.lab.altered_program)."""
        with (self._disk / FILLER).open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 12))

    def empty_disk(self) -> None:
        (self._disk / FILLER).unlink()

    @property
    def _disk(self) -> Path:
        return self.lab.directory / self._hit

    def step_clock(self, seconds: int) -> None:
        """Step the wall clock of the forwarder and of the agent to this offset (lbmux.lab.altered_program)."""
        for node in (self._hit, self.host):
            step(self.lab.directory / f"{node}.clock", seconds)

    def start_agent(self) -> None:
        node = self.lab.topology.node(self.host)
        self.lab.start(node, next(program for program in node.programs if program.name == "agent"))

    def kill_server(self) -> None:
        processes.kill(self.lab.process(self.host, self.scenario.server), signal.SIGKILL)

    def start_server(self) -> None:
        node = self.lab.topology.node(self.host)
        self.lab.start(node, next(program for program in node.programs if program.name == self.scenario.server))

    def ports_at_backend(self) -> set[int]:
        """Return the client ports of the backend's flows, from its agent: a mux has entries of a few only."""
        flows = (flow for answer in self.client(self.host).stream(GetFlows()) for flow in answer.flows)
        return {flow.source_port for flow in flows if flow.backend == self.backend}

    def override(self, what: OverriddenState | None) -> None:
        """Set the backend's override on every forwarder that has it: drain, disable, or None to clear it."""
        is_own = self.forwarder_is_backend and not self.scenario.balances
        nodes = [self._hit] if is_own else self.reachable(self.scenario.forwarder)
        for node in nodes:
            self.client(node).ask(Override(self.backend, what))

    def change(self, changed: Callable[[Config], Config]) -> None:
        """Rewrite the file with ``changed``, which gets a copy; then reload agents first, muxes second."""
        self.lab.write_config(changed(copy.deepcopy(self.lab.config_in_force)))
        for program in ("agent", self.scenario.forwarder):
            for node in self.reachable(program):
                self.client(node).ask(Reload())

    def change_backends(self, changed: Callable[[Backends], Backends]) -> None:
        """Change the backends of the first service in the file."""

        def with_backends(config: Config) -> Config:
            first, *others = config["services"]
            return config | {"services": [first | {"backends": changed(first["backends"])}, *others]}

        self.change(with_backends)

    def restore_config(self) -> None:
        self.change(lambda config: self.lab.topology.config)

    def wait_until_normal(self) -> None:
        """Wait until every forwarder is a next hop to the VIP and reports every backend as up."""
        for router, wanted in self.scenario.next_hops.items():
            self.wait_for(lambda: self.next_hops(router) == wanted, f"{router}'s next hops to the VIP")  # noqa: B023 -- called within the turn
        self.wait_for(lambda: all(self._healthy(node) for node in self.scenario.forwarders), "healthy backends")
        if self.scenario.active is not None:
            node, address = self.scenario.active
            self.wait_for(lambda: self._has_address(node, address), f"{node} with {address}")
        self.wait_for(lambda: self.scenario.is_normal(self.lab), "normal operation")

    def traffic(
        self, connections: int, short_per_s: float, pause_ms: float
    ) -> AbstractContextManager[Client | Clients]:
        """Run the traffic of an experiment within the context."""
        if self.scenario.resolvers:
            return users(self.lab, self.scenario.resolvers, NAME, connections, short_per_s, pause_ms)
        options = ("--connections", str(connections), "--short-per-s", str(short_per_s), "--pause-ms", str(pause_ms))
        return reporting(self.lab, "client", self.scenario.traffic, self.scenario.vip, str(ECHO_PORT), *options)

    def next_hops(self, router: str, vip: str = "") -> frozenset[str]:
        """Return the next hops to a VIP, by default the scenario's, that a router's kernel has."""
        words = ["ip", "-6" if ":" in (vip := vip or self.scenario.vip) else "-4", "-j", "route", "show", vip]
        ran = self.lab.run(router, words, capture_output=True, text=True)
        routes: list[dict[str, Any]] = json.loads(ran.stdout or "[]")
        return frozenset(hop["gateway"] for route in routes for hop in route.get("nexthops", [route]))

    def _has_address(self, node: str, address: str) -> bool:
        ran = self.lab.run(node, ["ip", "-j", "address", "show"], capture_output=True, text=True)
        return any(one["local"] == address for link in json.loads(ran.stdout) for one in link["addr_info"])

    def _healthy(self, node: str) -> bool:
        try:
            lines = self.client(node).ask(GetHealth()).health
        except ControlError:
            return False
        idle = {name for name, host in self.scenario.backends.items() if host == self.scenario.spare}
        # When a balancing edge in user space stops, its backend stops too; the others notice by probes.
        is_gone = self.scenario.balances and self.lab.driver == "packet"
        return all(
            line.state in ("up", "removing") if line.backend not in idle else line.state == "down" or not is_gone
            for line in lines
        )

    def _filter(self, node: str, program: bytes) -> None:
        """Attach an XDP program to the far end of each of a node's links, unless that end may have its own program."""

        def attach(interface: str) -> None:
            loaded = load_program(Attach.XDP, program, "lbmux_lab").descriptor
            with IPRoute() as ip:
                ip.link("set", index=ip.link_lookup(ifname=interface)[0], xdp_fd=loaded)
            os.close(loaded)

        for link in self.lab.topology.links:
            for port, other in ((link.a, link.b), (link.b, link.a)):
                if other.node == node and self.lab.topology.node(port.node).role not in HAVE_PROGRAMS:
                    self.lab.inside(port.node, partial(attach, port.interface))

    def reachable(self, program: str) -> list[str]:
        """Return the nodes on which a program runs and answers."""
        return [
            node.name for node in self.lab.topology.nodes if node.name not in self._silent and self._has(node, program)
        ]

    def _has(self, node: Node, program: str) -> bool:
        return any(one.name == program for one in node.programs) and self._runs(node.name, program)

    def _runs(self, node: str, program: str = "") -> bool:
        try:
            return bool(self.lab.process(node, program or self.scenario.forwarder))
        except LabError:
            return False

    def _start(self, node: str) -> None:
        target = self.lab.topology.node(node)
        self.lab.start(target, next(one for one in target.programs if one.name == self.scenario.forwarder))

    def client(self, node: str) -> ControlClient:
        return ControlClient(self.lab.directory / f"{node}.sock")

    def wait_for(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until ``holds``; raise LabError after 20 s."""
        deadline = time.monotonic() + NORMAL_TIMEOUT_S
        while not holds():
            if time.monotonic() > deadline:
                raise LabError("", f"{self.scenario.name}: no {what} within {NORMAL_TIMEOUT_S:.0f} s")
            time.sleep(0.02)
