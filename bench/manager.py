"""The manager as processes: until a change is in force on simulated nodes, which speak the real protocol.

A node of this bench puts a state in force at once: the time that a mux needs for its tables is not included. Times are
measured from the request, which is sent over an open connection. The stores and the nodes' states are in memory
(/dev/shm). All nodes are in one process, which shares the machine with the managers; those of the pool of a thousand
read only what a report needs (bench.simulated_nodes).
"""

import asyncio
import gc
import math
import shutil
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import aiohttp

from bench import manager_elections, manager_vips
from bench.manager_processes import ManagerPool, Program, managers_running
from bench.report import Result
from bench.simulated_nodes import SimulatedNode, simulated
from lbmux.manager.api_client import trusting
from lbmux.manager.api_models import ApplyAnswer, ApplyRequest, OverrideRequest, OverridesAnswer
from lbmux.manager.authority import KeyPair, Subject, issue, new_key, new_request
from lbmux.manager.held_state import NodeState
from lbmux.manager.identity import Identity
from lbmux.manager.node_client import NodeClient
from lbmux.manager.node_messages import HealthLine, View

SERVICES, BACKENDS, MUXES, CHANGES, DEATHS = 1000, 10, 4, 40, 100
MANAGERS = 5
AGENTS, HEALTH_CHANGES_PER_S = 100, 1000
NODES, NODE_CHANGES, NODE_SERVICES = 1000, 10, 10
STEADY_S, STEADY_EVERY_S = 600.0, 0.6
"""100 changes a minute for ten minutes."""
WAIT_S = 60.0


class Node:
    """A node that only records what it received; ``overrides``: the version in force, ``down``: backends."""

    def __init__(self, client: NodeClient) -> None:
        self.client, self.overrides, self.revision, self.down = client, -1, 0, set[tuple[str, str]]()
        self.at = 0.0
        client.on_view = self.view

    async def accept(self, state: NodeState) -> None:
        self.overrides, self.revision, self.at = state.stored.version, state.revision, time.perf_counter()

    def view(self, view: View) -> None:
        for service, backend, is_up, _ in view.lines:
            (self.down.discard if is_up else self.down.add)((service, backend))
        self.at = time.perf_counter()


class Bench:
    """A pool and its primary."""

    def __init__(self, pool: ManagerPool, services: int) -> None:
        self._pool = pool
        url, self.process = pool.primary()
        self.api = pool.client(url)
        request = ApplyRequest(file=_config(services), force=True)
        self.api.post("/v1/config", request, ApplyAnswer)
        self._url, self._trust = url, trusting(pool.identity.ca.decode())

    def client(self, name: str, role: Literal["mux", "agent"], *hosts: str) -> NodeClient:
        own = self._joined(name)
        return NodeClient(self._pool.urls, own, role, self._pool.directory / name / "state", hosts)

    def simulated(self, name: str) -> SimulatedNode:
        return SimulatedNode(self._url, self._joined(name).client_context(), self._pool.identity.subject.pool)

    def _joined(self, name: str) -> Identity:
        """Return the identity of a new node of the pool."""
        authority, key, own = self._pool.identity.authority, new_key(), Identity(self._pool.directory / name)
        assert authority is not None
        subject = Subject(self._pool.identity.subject.pool, "node", name)
        certificate = issue(authority, new_request(key, name), subject, datetime.now(UTC))
        own.write(authority.certificate, KeyPair(certificate, key))
        return own

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Open a connection to the primary, over which requests go."""
        headers = {"Authorization": f"Bearer {self._pool.token}", "Content-Type": "application/json"}
        connector = aiohttp.TCPConnector(ssl=self._trust)
        async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
            async with session.get(f"{self._url}/v1/status") as response:
                await response.read()
            yield session

    async def weigh(self, session: aiohttp.ClientSession, weight: int) -> int:
        """Change a weight and return the version of the overrides; at the new primary if it was replaced."""
        body = OverrideRequest(action="weight", backend="s0b0", weight=weight).model_dump_json()
        async with asyncio.timeout(WAIT_S):
            while True:
                url = f"{self._url}/v1/overrides"
                async with session.post(url, data=body, allow_redirects=False) as response:
                    text = await response.text()
                if response.status == 200:
                    return OverridesAnswer.model_validate_json(text).version
                assert response.status in (307, 503), text
                self._url, self.process = await asyncio.to_thread(self._pool.primary)


@asynccontextmanager
async def _nodes(bench: Bench, count: int, prefix: str) -> AsyncIterator[list[Node]]:
    async with AsyncExitStack() as stack:
        nodes: list[Node] = []
        for number in range(count):
            nodes.append(node := Node(bench.client(f"{prefix}{number}", "mux")))
            await stack.enter_async_context(node.client.following(node.accept))
        await _until(lambda: all(one.revision > 0 for one in nodes))
        gc.freeze()  # as daemons do when they are ready
        yield nodes


@asynccontextmanager
async def _changing_health(bench: Bench) -> AsyncIterator[None]:
    """Let agents report HEALTH_CHANGES_PER_S changes, spread over all services."""
    async with AsyncExitStack() as stack:
        tasks = []
        for number in range(AGENTS):
            own = range(number * SERVICES // AGENTS, (number + 1) * SERVICES // AGENTS)
            hosts = [_dip(service, backend) for service in own for backend in range(BACKENDS)]
            agent = bench.client(f"agent{number}", "agent", *hosts)
            states = {(n, b): (f"s{n}", f"s{n}b{b}", True, "connected") for n in own for b in range(BACKENDS)}
            agent.health = lambda states=states: tuple(states.values())  # type: ignore[misc]
            await stack.enter_async_context(agent.following(_accept))
            tasks.append(asyncio.create_task(_flap(agent, states)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _flap(agent: NodeClient, states: dict[tuple[int, int], HealthLine]) -> None:
    """Change the state of one backend after the other."""
    due = time.monotonic()
    while True:
        for key, (service, backend, is_up, _) in tuple(states.items()):
            states[key] = (service, backend, not is_up, "refused" if is_up else "connected")
            agent.health_changed.send()
            due += AGENTS / HEALTH_CHANGES_PER_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))


async def _accept(state: NodeState) -> None:
    return


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.001)


async def _weights(
    bench: Bench, nodes: Sequence[Node | SimulatedNode], changes: int, every_s: float = 0.0
) -> list[float]:
    """Return, for each change of a weight, the time until it was in force on all nodes, in milliseconds."""
    times_ms, due = [], time.monotonic()
    async with bench.connected() as session:
        for number in range(changes):
            begun = time.perf_counter()
            version = await bench.weigh(session, 2 + number % 7)
            await _until(lambda version=version: all(node.overrides >= version for node in nodes))  # type: ignore[misc]
            times_ms.append(1000 * (max(node.at for node in nodes) - begun))
            due += every_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
    return times_ms


async def _deaths(bench: Bench, muxes: Sequence[Node]) -> list[float]:
    """Return, for each death of a backend, the time from its agent's report to the last mux's view, in milliseconds."""
    agent, states, times_ms = bench.client("agent", "agent", _dip(0, 0)), dict[str, HealthLine](), list[float]()
    agent.health = lambda: tuple(states.values())
    async with agent.following(_accept):
        await _until(lambda: bool(agent.manager))
        for number in range(DEATHS):
            key = "s0", f"b{number}"
            states[key[1]] = (*key, True, "connected")
            agent.health_changed.send()
            await asyncio.sleep(0.05)
            states[key[1]] = (*key, False, "refused")
            begun = time.perf_counter()
            agent.health_changed.send()
            await _until(lambda key=key: all(key in mux.down for mux in muxes))  # type: ignore[misc]
            times_ms.append(1000 * (time.perf_counter() - begun))
    return times_ms


def _config(services: int) -> str:
    lines = ["maglev: {size: 251}", "services:"]
    for n in range(services):
        lines += [f"  - name: s{n}", f"    vip: 192.{n // 250}.{n % 250}.1", "    protocol: tcp", "    port: 80",
                  "    health: {kind: tcp, by: agent}", "    backends:"]  # fmt: skip
        lines += [f"      - {{name: s{n}b{b}, dip: {_dip(n, b)}}}" for b in range(BACKENDS)]
    return "\n".join(lines) + "\n"


def _dip(service: int, backend: int) -> str:
    return f"10.{service // 250}.{service % 250}.{backend + 1}"


def _cpu_s(program: Program) -> float:
    fields = _proc(program, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _memory_mib(program: Program) -> float:
    line = next(one for one in _proc(program, "status").splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def _proc(program: Program, name: str) -> str:
    assert program.process is not None  # it runs
    return Path(f"/proc/{program.process.pid}/{name}").read_text()


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


def _of_weights(what: str, times: Sequence[float], median_ms: int, p99_ms: int) -> list[Result]:
    return [
        Result("manager", f"{what}, median", statistics.median(times), "ms", goal=f"<= {median_ms}"),
        Result("manager", f"{what}, p99", _p99(times), "ms", goal=f"<= {p99_ms}"),
    ]


async def _one_manager(bench: Bench) -> list[Result]:
    async with _nodes(bench, MUXES, "mux") as muxes:
        times, deaths = await _weights(bench, muxes, CHANGES), await _deaths(bench, muxes)
    what = f"a backend's death at {MUXES} muxes"
    return [
        *_of_weights(f"SQLite, {SERVICES} x {BACKENDS}, {MUXES} muxes: a weight in force", times, 25, 250),
        Result("manager", f"{what}, median of {DEATHS}", statistics.median(deaths), "ms"),
        Result("manager", f"{what}, p99", _p99(deaths), "ms", goal="<= 50"),
    ]


async def _several_managers(bench: Bench) -> list[Result]:
    async with _nodes(bench, MUXES, "mux") as muxes:
        times, deaths = await _weights(bench, muxes, CHANGES), await _deaths(bench, muxes)
        async with _changing_health(bench):
            await asyncio.sleep(1.0)
            busy = await _weights(bench, muxes, CHANGES)
    pool = f"etcd, {MANAGERS} managers"
    return [
        *_of_weights(f"{pool}, {SERVICES} x {BACKENDS}, {MUXES} muxes: a weight in force", times, 75, 250),
        Result("manager", f"{pool}: a backend's death at {MUXES} muxes, p99", _p99(deaths), "ms", goal="<= 50"),
        *_of_weights(f"{pool}, {HEALTH_CHANGES_PER_S} health changes a second: a weight in force", busy, 150, 500),
    ]


async def _many_nodes(bench: Bench) -> list[Result]:
    nodes = [bench.simulated(f"node{number}") for number in range(NODES)]
    async with simulated(nodes):
        times = await _weights(bench, nodes, NODE_CHANGES)
        before, own, begun = _cpu_s(bench.process), time.process_time(), time.perf_counter()
        steady = await _weights(bench, nodes, round(STEADY_S / STEADY_EVERY_S), STEADY_EVERY_S)
        elapsed_s = time.perf_counter() - begun
        cpu, memory = (_cpu_s(bench.process) - before) / elapsed_s, _memory_mib(bench.process)
        own_cpu = (time.process_time() - own) / elapsed_s
    what, meanwhile = f"{NODES} nodes: a weight in force on all", f"100 changes a minute for {STEADY_S / 60:g} minutes"
    behind_s = elapsed_s - STEADY_S
    return [
        Result("manager", f"{what}, median", statistics.median(times), "ms"),
        Result("manager", f"{what}, longest", max(times), "ms", goal="<= 1000"),
        Result("manager", f"{meanwhile}: median", statistics.median(steady), "ms"),
        Result("manager", f"{meanwhile}: longest", max(steady), "ms", goal="<= 1000"),
        Result("manager", f"{meanwhile}: backlog at the end", max(0.0, behind_s), "s", goal="<= 1"),
        Result("manager", f"{meanwhile}: the manager's CPU", cpu, "cores"),
        Result("manager", f"{meanwhile}: CPU of the process with all nodes", own_cpu, "cores"),
        Result("manager", f"{meanwhile}: the manager's memory", memory, "MiB"),
    ]


def one_manager() -> list[Result]:
    with managers_running("sqlite", 1) as pool:
        return asyncio.run(_one_manager(Bench(pool, SERVICES)))


def several_managers() -> list[Result]:
    """Measure an etcd cluster, also while the health of backends changes. Return nothing if etcd is not installed."""
    if shutil.which("etcd") is None:
        return []
    with managers_running("etcd", MANAGERS) as pool:
        return asyncio.run(_several_managers(Bench(pool, SERVICES)))


def many_nodes() -> list[Result]:
    with managers_running("sqlite", 1) as pool:
        return asyncio.run(_many_nodes(Bench(pool, NODE_SERVICES)))


def run() -> list[Result]:
    return one_manager() + several_managers() + manager_elections.run() + manager_vips.run() + many_nodes()
