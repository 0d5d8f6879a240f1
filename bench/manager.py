"""A manager on SQLite, as a process: until a change is in force on simulated nodes, which speak the real protocol.

A node of this bench puts a state in force at once: what a mux takes for its tables is not part of the figures. Times
run from the start of the request, with its TLS handshake. The store and the nodes' states are in memory (/dev/shm).
"""

import asyncio
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from bench.report import Result
from lbmux.lab.processes import python
from lbmux.manager.admission import make_pool
from lbmux.manager.api_client import ApiClient, ApiError, trusting
from lbmux.manager.api_models import ApplyAnswer, ApplyRequest, OverrideRequest, OverridesAnswer, StatusAnswer
from lbmux.manager.authority import KeyPair, Subject, issue, new_key, new_request
from lbmux.manager.held_state import NodeState
from lbmux.manager.identity import Identity
from lbmux.manager.node_client import NodeClient
from lbmux.manager.node_messages import HealthLine
from lbmux.manager.store.open_store import open_store

SERVICES, BACKENDS, MUXES, CHANGES, DEATHS = 1000, 10, 4, 40, 100
NODES, NODE_CHANGES, NODE_SERVICES = 1000, 10, 10
PORT, AT_ONCE, WAIT_S = 17443, 50, 60.0


class Node:
    """A node that only notes when it got something; ``overrides``: the version in force, ``down``: backends."""

    def __init__(self, client: NodeClient) -> None:
        self.client, self.overrides, self.revision, self.down = client, -1, 0, set[tuple[str, str]]()
        self.at = 0.0
        client.on_view = self.view

    async def accept(self, state: NodeState) -> None:
        self.overrides, self.revision, self.at = state.stored.version, state.revision, time.perf_counter()

    def view(self, lines: Iterable[HealthLine], kept: tuple[str, ...] | None) -> None:
        for service, backend, is_up, _ in lines:
            (self.down.discard if is_up else self.down.add)((service, backend))
        self.at = time.perf_counter()


class Bench:
    """A pool with one manager; ``api`` is an admin's client."""

    def __init__(self, directory: Path, own: Identity, token: str) -> None:
        self._directory, self._own, self._token = directory, own, token

    @property
    def api(self) -> ApiClient:
        return ApiClient([f"https://127.0.0.1:{PORT}"], self._token, trusting(self._own.ca.decode()))

    def client(self, name: str, role: str, *hosts: str) -> NodeClient:
        authority, key, own = self._own.authority, new_key(), Identity(self._directory / name)
        assert authority is not None
        subject = Subject(self._own.subject.pool, "node", name)
        certificate = issue(authority, new_request(key, name), subject, datetime.now(UTC))
        own.write(authority.certificate, KeyPair(certificate, key))
        return NodeClient([f"https://127.0.0.1:{PORT}"], own, role, self._directory / name / "state", hosts)  # type: ignore[arg-type]

    async def apply(self, services: int) -> None:
        request = ApplyRequest(file=_config(services), force=True)
        await asyncio.to_thread(self.api.post, "/v1/config", request, ApplyAnswer)

    async def weigh(self, weight: int) -> int:
        request = OverrideRequest(action="weight", backend="s0b0", weight=weight)
        answer = await asyncio.to_thread(self.api.post, "/v1/overrides", request, OverridesAnswer)
        return answer.version


@asynccontextmanager
async def _manager() -> AsyncIterator[tuple[Bench, "subprocess.Popen[bytes]"]]:
    with tempfile.TemporaryDirectory(prefix="lbmux-bench-", dir="/dev/shm") as name:
        directory, own = Path(name), Identity(Path(name) / "m1")
        async with open_store(f"{name}/store") as store:
            _, token = await make_pool(store, own, "localhost", ["127.0.0.1"], time.time())
        words = ["manager", "--store", f"{name}/store", "--state", f"{name}/m1", "--listen", f"127.0.0.1:{PORT}"]
        command = [*python("lbmux.cli.main", *words), "--advertise", f"https://127.0.0.1:{PORT}"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            bench = Bench(directory, own, token)
            try:
                await _until_primary(bench)
                yield bench, process
            finally:
                process.terminate()


async def _until_primary(bench: Bench) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                if (await asyncio.to_thread(bench.api.get, "/v1/status", StatusAnswer)).is_primary:
                    return
            except ApiError:  # still starting
                await asyncio.sleep(0.05)


@asynccontextmanager
async def _nodes(bench: Bench, count: int, prefix: str) -> AsyncIterator[list[Node]]:
    async with AsyncExitStack() as stack:
        found: list[Node] = []
        for number in range(count):
            found.append(node := Node(bench.client(f"{prefix}{number}", "mux")))
            await stack.enter_async_context(node.client.following(node.accept))
            if number % AT_ONCE == AT_ONCE - 1:
                await _until(lambda: all(bool(one.client.manager) for one in found))
        await _until(lambda: all(one.revision > 0 for one in found))
        yield found


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.001)


async def _weights(bench: Bench, nodes: Sequence[Node], changes: int) -> list[float]:
    """Return, for each change of a weight, the time until it was in force on all nodes, in milliseconds."""
    found = []
    for number in range(changes):
        begun = time.perf_counter()
        version = await bench.weigh(2 + number % 7)
        await _until(lambda version=version: all(node.overrides >= version for node in nodes))
        found.append(1000 * (max(node.at for node in nodes) - begun))
    return found


async def _deaths(bench: Bench, muxes: Sequence[Node]) -> list[float]:
    """Return, for each death of a backend, the time from its agent's report to the last mux's view, in milliseconds."""
    agent, states, found = bench.client("agent", "agent"), dict[str, HealthLine](), list[float]()
    agent.health = lambda: tuple(states.values())

    async def accept(state: NodeState) -> None:
        return

    async with agent.following(accept):
        for number in range(DEATHS):
            key = "s0", f"b{number}"
            states[key[1]] = (*key, True, "connected")
            agent.health_changed.send()
            await asyncio.sleep(0.05)
            states[key[1]] = (*key, False, "refused")
            begun = time.perf_counter()
            agent.health_changed.send()
            await _until(lambda key=key: all(key in mux.down for mux in muxes))
            found.append(1000 * (time.perf_counter() - begun))
    return found


def _config(services: int) -> str:
    lines = ["maglev: {size: 251}", "services:"]
    for n in range(services):
        lines += [f"  - name: s{n}", f"    vip: 192.{n // 250}.{n % 250}.1", "    protocol: tcp", "    port: 80",
                  "    backends:"]  # fmt: skip
        lines += [f"      - {{name: s{n}b{b}, dip: 10.{n // 250}.{n % 250}.{b + 1}}}" for b in range(BACKENDS)]
    return "\n".join(lines) + "\n"


def _cpu_s(process: "subprocess.Popen[bytes]") -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _memory_mib(process: "subprocess.Popen[bytes]") -> float:
    line = next(one for one in Path(f"/proc/{process.pid}/status").read_text().splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


async def _small_pool() -> list[Result]:
    async with _manager() as (bench, _):
        await bench.apply(SERVICES)
        async with _nodes(bench, MUXES, "mux") as muxes:
            times, deaths = await _weights(bench, muxes, CHANGES), await _deaths(bench, muxes)
    what = f"{SERVICES} x {BACKENDS}, {MUXES} muxes: a weight in force"
    return [
        Result("manager", f"{what}, median", statistics.median(times), "ms", goal="<= 25"),
        Result("manager", f"{what}, p99", _p99(times), "ms"),
        Result("manager", f"a backend's death at {MUXES} muxes, median of {DEATHS}", statistics.median(deaths), "ms"),
        Result("manager", f"a backend's death at {MUXES} muxes, p99", _p99(deaths), "ms", goal="<= 50"),
    ]


async def _large_pool() -> list[Result]:
    async with _manager() as (bench, process):
        await bench.apply(NODE_SERVICES)
        async with _nodes(bench, NODES, "node") as nodes:
            before, begun = _cpu_s(process), time.perf_counter()
            times = await _weights(bench, nodes, NODE_CHANGES)
            cpu = (_cpu_s(process) - before) / (time.perf_counter() - begun)
            memory = _memory_mib(process)
    note = "nodes and manager share the machine"
    return [
        Result(
            "manager", f"{NODES} nodes: a weight in force on all, median", statistics.median(times), "ms", note=note
        ),
        Result(
            "manager", f"{NODES} nodes: a weight in force on all, longest", max(times), "ms", goal="<= 1000", note=note
        ),
        Result("manager", f"{NODES} nodes: the manager's CPU meanwhile", cpu, "cores"),
        Result("manager", f"{NODES} nodes: the manager's memory", memory, "MiB"),
    ]


def run() -> list[Result]:
    return asyncio.run(_small_pool()) + asyncio.run(_large_pool())
