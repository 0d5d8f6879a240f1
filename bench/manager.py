"""How soon a change of the pool reaches its nodes: one manager on SQLite, simulated nodes with the real protocol.

Times run from the request until the last node has the state; a node here applies the overrides, but has no tables.
"""

import asyncio
import json
import os
import ssl
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from bench.report import Result
from lbmux.backends.overrides import with_overrides
from lbmux.config.loader import parse
from lbmux.config.models import Config
from lbmux.lab.processes import python
from lbmux.manager.authority import KeyPair, Subject, issue, new_key, new_request
from lbmux.manager.held_state import NodeState
from lbmux.manager.identity import Identity
from lbmux.manager.node_client import NodeClient
from lbmux.manager.stored_overrides import as_overrides

BACKENDS = 10
SIZES = ((1000, 4, 100, 25), (100, 1000, 20, 1000))
"""Services, nodes, changes, and the goal for the median in ms."""
AT_ONCE = 50
START_S = 60.0


@dataclass
class Node:
    """A simulated node: it has the file's configuration, and applies the overrides to it."""

    client: NodeClient
    config: Config
    version: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def accept(self, state: NodeState) -> None:
        with_overrides(self.config, as_overrides(state.stored.overrides))
        self.version = state.stored.version
        self.changed.set()

    async def reach(self, version: int) -> None:
        while self.version < version:
            self.changed.clear()
            await self.changed.wait()


def run() -> list[Result]:
    return asyncio.run(_run())


async def _run() -> list[Result]:
    results: list[Result] = []
    for services, nodes, changes, goal in SIZES:
        with tempfile.TemporaryDirectory(prefix="lbmux-bench-") as directory:
            async with _manager(Path(directory)) as bed:
                text = _file(services)
                await bed.post("/v1/config", file=text)
                times, cpu_ms = await _changes(bed, parse(text.encode(), Path("services.yaml")), nodes, changes)
                memory_mib = bed.resident_mib()
        name, worst = f"weight change, on all of {nodes} nodes", sorted(times)[int(len(times) * 0.99)]
        note = f"{services} x {BACKENDS} backends"
        results += [
            Result("manager", f"{name}, median", statistics.median(times) * 1000, "ms", goal=f"<= {goal}", note=note),
            Result("manager", f"{name}, p99", worst * 1000, "ms"),
            Result("manager", f"CPU of the manager, {nodes} nodes", cpu_ms, "ms a change"),
            Result("manager", f"memory of the manager, {nodes} nodes", memory_mib, "MiB"),
        ]
    return results


@dataclass
class Bed:
    """A running manager, its CA, and a client with a connection that stays open."""

    directory: Path
    nodes: Path
    """The nodes' state: in memory, for they have a disk each."""
    url: str
    process: "subprocess.Popen[bytes]"
    session: aiohttp.ClientSession
    headers: dict[str, str]
    tls: ssl.SSLContext

    async def post(self, path: str, **body: Any) -> Any:
        async with self.session.post(f"{self.url}{path}", json=body, headers=self.headers, ssl=self.tls) as response:
            answer = await response.json()
            assert response.status == 200, answer
            return answer

    def node(self, number: int, config: Config) -> Node:
        identity, key = Identity(self.nodes / f"n{number}"), new_key()
        authority = Identity(self.directory).authority
        assert authority is not None
        subject = Subject(Identity(self.directory).subject.pool, "node", f"n{number}")
        certificate = issue(authority, new_request(key, "localhost"), subject, datetime.now(UTC))
        identity.write(authority.certificate, KeyPair(certificate, key))
        return Node(NodeClient([self.url], identity, "mux", identity.directory / "pool"), config)

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mib(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@asynccontextmanager
async def _manager(directory: Path) -> AsyncIterator[Bed]:
    store = ["--store", str(directory), "--state", str(directory)]
    init = python("lbmux.cli.main", "manager", "init", *store, "--name", "localhost", "--address", "127.0.0.1")
    subprocess.run(init, check=True, stdout=subprocess.DEVNULL)
    log = directory / "log"
    with log.open("wb") as file:
        command = python("lbmux.cli.main", "--log-format", "json", "manager", *store, "--listen", "127.0.0.1:0")
        process = subprocess.Popen(command, stderr=file)
    try:
        url = await asyncio.to_thread(_url, log)
        token = (directory / "admin.token").read_text().strip()
        tls = ssl.create_default_context(cafile=directory / "ca.crt")
        with tempfile.TemporaryDirectory(prefix="lbmux-bench-", dir="/dev/shm") as nodes:
            async with aiohttp.ClientSession() as session:
                yield Bed(directory, Path(nodes), url, process, session, {"Authorization": f"Bearer {token}"}, tls)
    finally:
        process.terminate()
        process.wait(10)


def _url(log: Path) -> str:
    """Return the manager's URL once it is primary."""
    deadline = time.monotonic() + START_S
    while True:
        lines = log.read_text().splitlines(keepends=True)
        said = [json.loads(line)["message"] for line in lines if line.endswith("\n")]
        urls = [text.rpartition(": ")[2] for text in said if text.startswith("manager ")]
        if urls and any(text.startswith("primary ") for text in said):
            return urls[0]
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


async def _changes(bed: Bed, config: Config, count: int, changes: int) -> tuple[Sequence[float], float]:
    """Return the times until the last of ``count`` nodes has a change, and the manager's CPU time for each, in ms."""
    times = list[float]()
    async with AsyncExitStack() as stack:
        version = (await bed.post("/v1/overrides", action="weight", backend="b0-0", weight=50))["version"]
        nodes = [bed.node(number, config) for number in range(count)]
        for first in range(0, count, AT_ONCE):  # all nodes share a process here
            for node in nodes[first : first + AT_ONCE]:
                await stack.enter_async_context(node.client.following(node.accept))
            await asyncio.gather(*(node.reach(version) for node in nodes[first : first + AT_ONCE]))
        before = bed.cpu_s()
        for number in range(changes):
            started = time.perf_counter()
            answer = await bed.post("/v1/overrides", action="weight", backend="b0-0", weight=1 + number % 7)
            await asyncio.gather(*(node.reach(answer["version"]) for node in nodes))
            times.append(time.perf_counter() - started)
        return times, (bed.cpu_s() - before) / changes * 1000


def _file(services: int) -> str:
    lines = ["services:"]
    for one in range(services):
        host = f"{one // 250}.{one % 250 + 1}"
        lines.append(f"  - {{name: s{one}, vip: 192.0.{host}, protocol: tcp, port: 80, backends: [")
        lines += [f"      {{name: b{one}-{n}, dip: 10.{n}.{host}}}," for n in range(BACKENDS)]
        lines.append("    ]}")
    return "\n".join(lines) + "\n"
