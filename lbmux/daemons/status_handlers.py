"""Control socket handlers behind `lbmux show` and `lbmux explain`, for mux and agent.

Each takes a Snapshot between two packets and reads it in a thread.
"""

import asyncio
import base64
import os
import platform
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from lbmux import __version__
from lbmux.api import answers, requests, status_tables
from lbmux.api.control_server import Handler, Kind
from lbmux.api.protocol import VERSION
from lbmux.daemons.drivers import Driver
from lbmux.daemons.pending_neighbours import PendingNeighbours
from lbmux.datapath.tables import VERSION as TABLES_VERSION
from lbmux.errors import LbmuxError
from lbmux.frames.packet_ring import PacketRing
from lbmux.tables import flow_filter, live_flows
from lbmux.tables.snapshot import Snapshot

LINES_AN_ANSWER = 128
"""The size of a chunk: less than a millisecond of work before packets are processed."""
MOST_BYTES = 1 << 16
"""Maximum number of bytes of a table in one answer."""
Line = TypeVar("Line")


class LayoutError(LbmuxError):
    """There is no such ``region``, or it has no ``length`` bytes ``at`` this offset."""

    region: str
    at: int
    length: int

    def __str__(self) -> str:
        return f"table {self.region}: no {self.length} bytes at {self.at} (at most {MOST_BYTES} at a time)"


@dataclass
class StatusHandlers:
    """``snapshot`` returns the state in force; ``about`` has the values that neither tables nor driver know."""

    snapshot: Callable[[], Snapshot]
    driver: Driver
    config: Path
    about: dict[str, Any]
    ring: PacketRing | None = None
    waiting: PendingNeighbours | None = None
    slow: Callable[[], dict[str, int]] | None = None
    host_forwarding: Callable[[], answers.HostForwarding] | None = None
    overload: Callable[[], answers.Overload] | None = None
    started: float = field(default_factory=time.monotonic)
    loaded_at: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        live_flows.warm_up(self.snapshot())

    def loaded(self) -> None:
        """A configuration has come into force."""
        self.loaded_at = time.time()

    def handlers(self) -> dict[Kind, Handler]:
        return {
            requests.GetServices: self._list(answers.Services, status_tables.services),
            requests.GetBackends: self._list(answers.Backends, status_tables.backends),
            requests.GetNeighbours: self._list(answers.Neighbours, status_tables.neighbours),
            requests.GetCounters: self.counters,
            requests.GetRuntime: self.runtime,
            requests.GetFlows: self.flows,
            requests.CountFlows: self.flow_count,
            requests.GetLayout: self.layout,
            requests.ReadMemory: self.memory,
        }

    def _list(
        self, answer: Callable[[int, str, list[Line]], object], read: Callable[[Snapshot], list[Line]]
    ) -> Handler:
        async def handler(request: requests.Request[Any]) -> AsyncIterator[object]:
            """A stream of one or more answers, each with a part of the list."""
            for part in parts(await asyncio.to_thread(read, self.snapshot())):
                yield answer(VERSION, self.driver.role, part)

        return handler

    async def counters(self, request: requests.GetCounters) -> answers.Counters:
        snapshot, waiting = self.snapshot(), self.waiting
        # Not in a thread: reading the kernel's counter resets it.
        ring = _ring_counters(self.ring) if self.ring else None
        return answers.Counters(
            VERSION,
            self.driver.role,
            await asyncio.to_thread(status_tables.verdicts, snapshot, self.driver.kernel is not None),
            await asyncio.to_thread(status_tables.lookups, snapshot),
            ring,
            None if waiting is None else {"frames": len(waiting), "dropped": waiting.dropped},
            self.slow() if self.slow else None,
        )

    async def runtime(self, request: requests.GetRuntime) -> answers.Runtime:
        kernel = self.driver.kernel
        loaded = kernel.loaded if kernel else {}
        tables, memory_bytes = await asyncio.to_thread(status_tables.table_sizes, self.snapshot())
        return answers.Runtime(
            version=VERSION,
            program=self.driver.role,
            **self.driver.describe(),
            **self.about,
            instructions={self.driver.programs[place]: code.instructions for place, code in loaded.items()},
            host_forwarding=self.host_forwarding() if self.host_forwarding else None,
            overload=self.overload() if self.overload else None,
            pid=os.getpid(),
            uptime_s=round(time.monotonic() - self.started, 3),
            cpus=os.cpu_count(),
            workers=self.driver.tables.sizes.workers,
            config=str(self.config.absolute()),
            config_loaded=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.loaded_at)),
            versions=_versions(),
            tables=tables,
            memory_bytes=memory_bytes,
        )

    async def flow_count(self, request: requests.CountFlows) -> answers.FlowCount:
        snapshot = self.snapshot()
        count = await asyncio.to_thread(lambda: live_flows.count(snapshot, _test(request.filter, snapshot)))
        return answers.FlowCount(VERSION, self.driver.role, count)

    async def flows(self, request: requests.GetFlows) -> AsyncIterator[answers.Flows]:
        """Stream the flows, LINES_AN_ANSWER at a time."""
        snapshot, sort, limit = self.snapshot(), request.sort, request.limit
        picked = await asyncio.to_thread(
            lambda: live_flows.select(snapshot, _test(request.filter, snapshot), sort, limit)
        )
        lines = await asyncio.to_thread(live_flows.describe, picked)
        while some := await asyncio.to_thread(lambda: list(islice(lines, LINES_AN_ANSWER))):
            yield answers.Flows([answers.FlowLine(VERSION, **line) for line in some])

    async def layout(self, request: requests.GetLayout) -> answers.Layout:
        snapshot = self.snapshot()
        services = [service for service in snapshot.services if str(service.vip) == request.vip]
        listed = [service.model_copy(update={"pool": None}) for service in services]  # with the backends in force
        names = [(service.name, backend.name) for service in services for backend in service.backends]
        return answers.Layout(
            VERSION,
            self.driver.role,
            tables=TABLES_VERSION,
            sizes=asdict(snapshot.tables.sizes),
            in_kernel=self.driver.kernel is not None,
            services=[service.model_dump(mode="json") for service in listed],
            rows=[(*name, snapshot.rows[name]) for name in names],
            interfaces=_interfaces(snapshot, [snapshot.rows[name] for name in names]),
        )

    async def memory(self, request: requests.ReadMemory) -> str:
        """Bytes of a table, as base64.  They include secret keys; the socket's mode keeps other users out."""
        memory, at, length = self.snapshot().tables.memory.get(request.region), request.at, request.length
        if memory is None or not 0 <= at <= at + length <= len(memory) or length > MOST_BYTES:
            raise LayoutError(request.region, at, length)
        return base64.b64encode(memory[at : at + length].tobytes()).decode()


def parts(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """Split the lines of an answer; one empty part if there are none."""
    for first in range(0, max(1, len(lines)), LINES_AN_ANSWER):
        yield [*lines[first : first + LINES_AN_ANSWER]]


def _ring_counters(ring: PacketRing) -> dict[str, int]:
    return {
        "dropped": ring.dropped(), "unsent": ring.unsent, "outages": ring.outages,
        "super_frames": ring.super_frames, "super_frames_lost": ring.super_frames_lost,
    }  # fmt: skip


def _test(filter: str, snapshot: Snapshot) -> live_flows.Test | None:
    return flow_filter.parse(filter, snapshot) if filter.strip() else None


def _interfaces(snapshot: Snapshot, rows: list[int]) -> dict[int, str]:
    """Names of the interfaces by which a mux reaches its backends, by index."""
    indices = set() if snapshot.is_agent else set(snapshot.tables.backends["interface"][rows].tolist()) - {0}
    return {index: status_tables.interface_name(index) for index in indices}


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("numba", "llvmlite", "numpy")}
    return {
        "lbmux": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        **packages,
    }
