"""What events do to the managers of a system, and to the nodes that follow them."""

import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from lbmux.errors import LabError, LbmuxError
from lbmux.lab import processes
from lbmux.lab.managed import manager_url
from lbmux.lab.scoreboard.system_under_test import SystemUnderTest
from lbmux.manager.api_client import ApiClient, trusting
from lbmux.manager.api_models import NodesAnswer, OverrideRequest, OverridesAnswer, StatusAnswer
from lbmux.plurals import counted

PRIMARY_S, REFUSED_S, FROZEN_S, SETTLED_S = 5.0, 5.0, 3.0, 20.0
"""Time for a new primary, and for a refusal; how long a primary is frozen; time until all nodes follow. In seconds."""
RESTARTED_S = 60.0
"""Time until a program that was restarted follows, in seconds: a new version compiles its code first."""
ANSWER_S = 4.5
"""Time for each answer of a manager, in seconds."""
Result = TypeVar("Result")
NETWORK = "10.2.0.0/16"
"""The managers' addresses."""


class ManagedPool:
    """The managers of a system's lab; requests are made in its client's namespace."""

    def __init__(self, system: SystemUnderTest) -> None:
        self._system, self._lab = system, system.lab
        self.managers = [node.name for node in self._lab.topology.nodes if node.role == "manager"]

    def primary(self) -> str:
        """Return the node of the manager that is primary; raise LabError if there is none for too long."""
        deadline = time.monotonic() + PRIMARY_S
        while time.monotonic() < deadline:
            for name in self._running():
                status = self._ask(name, lambda client: client.get("/v1/status", StatusAnswer))
                if status is not None and status.is_primary:
                    return name
            time.sleep(0.05)
        raise LabError("", f"no manager became primary within {PRIMARY_S:g} s")

    def kill(self, count: int) -> None:
        """Kill the primary and more managers, with their members of the store's cluster if there are more."""
        first = self.primary()
        for name in [first, *(one for one in self.managers if one != first)][:count]:
            for program in self._programs(name):
                if program.startswith("manager") or count > 1:
                    processes.kill(self._lab.process(name, program), signal.SIGKILL)

    def kill_primary(self) -> None:
        """Kill the primary, and wait for another."""
        self.kill(1)
        self.primary()

    def kill_minority(self) -> None:
        self.kill(2)
        self.primary()

    def kill_majority(self) -> None:
        """Kill most managers and members; a change must be refused in time, with a reason."""
        self.kill(len(self.managers) // 2 + 1)
        begun = time.monotonic()
        try:
            self.weigh(2)
        except LbmuxError:
            took = time.monotonic() - begun
            if took > REFUSED_S:
                raise LabError("", f"the change was refused, but only after {took:.1f} s only") from None
            return
        raise LabError("", "a change was accepted although most members of the store are gone")

    def freeze_primary(self) -> None:
        """Stop the primary for longer than its lease, and wake it up: it must not be primary any more."""
        first = self.primary()
        process = self._lab.process(first, "manager")
        processes.kill(process, signal.SIGSTOP)
        time.sleep(FROZEN_S)
        second = self.primary()
        processes.kill(process, signal.SIGCONT)
        self.weigh(2)
        if second == first or self.primary() == first:
            raise LabError(first, "it is primary again although another one was elected")

    def stop(self) -> None:
        for name in self.managers:
            processes.kill(self._lab.process(name, "manager"), signal.SIGTERM)

    def restore(self) -> None:
        """Start the programs that do not run, wait until all nodes follow, and drop the overrides of events."""
        with ThreadPoolExecutor(len(self.managers)) as starts:
            list(starts.map(self._start_stopped, self.managers))
        self.primary()
        self.weigh(None)
        self.wait_until_followed()

    def _start_stopped(self, name: str) -> None:
        node = self._lab.topology.node(name)
        for program in reversed(node.programs):  # the member before its manager
            if program.name not in self._programs(name):
                self._lab.start(node, program)

    def partition(self, node: str) -> None:
        """Cut a node off from the managers, and change something meanwhile."""
        self._ip(node, "add")
        self.weigh(2)

    def rejoin(self, node: str) -> None:
        self._ip(node, "del")
        self.restore()

    def restart_mux_without_managers(self) -> None:
        self.stop()
        self._system.signal_forwarder(signal.SIGTERM)
        self._system.start_forwarder()

    def upgrade(self) -> None:
        """Restart managers, then muxes, then agents, one at a time; each follows before the next."""
        nodes = self._lab.topology.nodes
        for program in ("manager", self._system.scenario.forwarder, "agent"):
            for node in nodes:
                if program in self._programs(node.name):
                    self._restart(node.name, program)
                    self.wait_until_followed(RESTARTED_S)

    def wait_until_followed(self, settled_s: float = SETTLED_S) -> None:
        """Wait until every mux and agent that runs has the current state; raise LabError."""
        deadline = time.monotonic() + settled_s
        while (late := self._late()) and time.monotonic() < deadline:
            time.sleep(0.05)
        if late:
            raise LabError("", f"{counted(len(late), 'node')} without the current state: {', '.join(late)}")

    def weigh(self, weight: int | None) -> None:
        """Change something small: the weight of the backend that events act on; raise LbmuxError if it is refused."""
        request = OverrideRequest(action="weight", backend=self._system.backend, weight=weight, force=True)
        urls = [manager_url(int(name.removeprefix("manager"))) for name in self._running()]
        self._inside(urls, lambda client: client.post("/v1/overrides", request, OverridesAnswer))

    def _late(self) -> list[str]:
        name = self.primary()
        status = self._ask(name, lambda client: client.get("/v1/status", StatusAnswer))
        answer = self._ask(name, lambda client: client.get("/v1/nodes", NodesAnswer))
        if status is None or answer is None:
            return [name]
        wanted = status.revision, status.overrides
        current = {one.node for one in answer.nodes if one.connected and (one.in_force, one.overrides) == wanted}
        nodes = self._lab.topology.nodes
        return [one.name for one in nodes if {"mux", "agent"} & {*self._programs(one.name)} and one.name not in current]

    def _running(self) -> list[str]:
        return [name for name in self.managers if "manager" in self._programs(name)]

    def _programs(self, node: str) -> list[str]:
        return [one.name for one in self._lab.processes if one.node == node and one.alive]

    def _restart(self, name: str, program: str) -> None:
        process, node = self._lab.process(name, program), self._lab.topology.node(name)
        processes.kill(process, signal.SIGTERM)
        deadline = time.monotonic() + SETTLED_S
        while process.alive and time.monotonic() < deadline:
            time.sleep(0.02)
        self._lab.start(node, next(one for one in node.programs if one.name == program))

    def _ask(self, manager: str, ask: Callable[[ApiClient], Result]) -> Result | None:
        """Ask one manager; None if it does not answer."""
        try:
            return self._inside([manager_url(int(manager.removeprefix("manager")))], ask)
        except LbmuxError:
            return None

    def _inside(self, urls: list[str], ask: Callable[[ApiClient], Result]) -> Result:
        pool = self._lab.directory / "pool"
        token, ca = (pool / "token").read_text(), (pool / "manager1" / "ca.crt").read_text()
        return self._lab.inside("client", lambda: ask(ApiClient(urls, token, trusting(ca), timeout_s=ANSWER_S)))

    def _ip(self, node: str, verb: str) -> None:
        self._lab.run(node, ["ip", "route", verb, "blackhole", NETWORK], check=True)
