"""Control socket handlers behind `lbmux show` and `lbmux explain`, for mux and agent.

Each takes a Snapshot between two packets and reads it in a thread.
"""

import asyncio
import base64
import os
import platform
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from lbmux import __version__
from lbmux.api import status_tables
from lbmux.daemons.drivers import Driver
from lbmux.daemons.pending_neighbours import PendingNeighbours
from lbmux.datapath.tables import VERSION
from lbmux.errors import LbmuxError
from lbmux.frames.packet_ring import PacketRing
from lbmux.tables import flow_filter, live_flows
from lbmux.tables.snapshot import Snapshot

FORMAT = 1
"""Version of all answers: it changes when a field goes or changes its meaning, not when a field is added."""
LINES_AN_ANSWER = 128
"""Less than a millisecond of work before packets get their turn."""
MOST_BYTES = 1 << 16
"""Most bytes of a table in one answer."""


class LayoutError(LbmuxError):
    """There is no such ``region``, or it has no ``length`` bytes ``at`` this offset."""

    region: str
    at: int
    length: int

    def __str__(self) -> str:
        return f"table {self.region}: no {self.length} bytes at {self.at} (at most {MOST_BYTES} at a time)"


@dataclass
class StatusHandlers:
    """``snapshot`` returns what is in force; ``about`` has what is in neither tables nor driver."""

    snapshot: Callable[[], Snapshot]
    driver: Driver
    config: Path
    about: dict[str, Any]
    ring: PacketRing | None = None
    waiting: PendingNeighbours | None = None
    slow: Callable[[], dict[str, int]] | None = None
    more: dict[str, Callable[[], dict[str, object]]] = field(default_factory=dict)
    """More parts of `runtime`, by name."""
    started: float = field(default_factory=time.monotonic)
    loaded_at: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        live_flows.warm_up(self.snapshot())

    def loaded(self) -> None:
        """A configuration has come into force."""
        self.loaded_at = time.time()

    def handlers(self) -> dict[str, Any]:
        return {
            "services": self._list("services", status_tables.services),
            "backends": self._list("backends", status_tables.backends),
            "neighbours": self._list("neighbours", status_tables.neighbours),
            "counters": self.counters,
            "runtime": self.runtime,
            "flows": self.flows,
            "flow_count": self.flow_count,
            "layout": self.layout,
            "memory": self.memory,
        }

    def _envelope(self, content: dict[str, Any]) -> dict[str, Any]:
        return {"version": FORMAT, "program": self.snapshot().program, **content}

    def _list(self, name: str, read: Callable[[Snapshot], list[dict[str, Any]]]) -> Callable[[], Any]:
        async def answer() -> AsyncIterator[dict[str, Any]]:
            """A stream of one or more answers, each with a part of the list."""
            lines = await asyncio.to_thread(read, self.snapshot())
            for first in range(0, max(1, len(lines)), LINES_AN_ANSWER):
                yield self._envelope({name: lines[first : first + LINES_AN_ANSWER]})

        return answer

    async def counters(self) -> dict[str, Any]:
        ring, waiting = self.ring, self.waiting
        lost = {
            # Not in a thread: reading the kernel's counter resets it.
            "ring": ring and _ring_counters(ring),
            "pending_neighbours": None if waiting is None else {"frames": len(waiting), "dropped": waiting.dropped},
            "slowpath": self.slow and self.slow(),
        }
        found = await asyncio.to_thread(status_tables.counters, self.snapshot(), self.driver.kernel is not None)
        return self._envelope(found | lost)

    async def runtime(self) -> dict[str, Any]:
        kernel = self.driver.kernel
        loaded = kernel.loaded if kernel else {}
        return self._envelope(
            self.driver.describe()
            | {
                "instructions": {self.driver.programs[place]: code.instructions for place, code in loaded.items()},
                **self.about,
                **{name: describe() for name, describe in self.more.items()},
                "pid": os.getpid(),
                "uptime_s": round(time.monotonic() - self.started, 3),
                "cpus": os.cpu_count(),
                "workers": self.driver.tables.sizes.workers,
                "config": str(self.config.absolute()),
                "config_loaded": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.loaded_at)),
                "versions": _versions(),
            }
            | await asyncio.to_thread(status_tables.table_sizes, self.snapshot())
        )

    async def flow_count(self, filter: str = "") -> dict[str, Any]:
        snapshot = self.snapshot()
        return self._envelope(
            {"flows": await asyncio.to_thread(lambda: live_flows.count(snapshot, _test(filter, snapshot)))}
        )

    async def flows(self, filter: str = "", sort: str = "", limit: int | None = None) -> AsyncIterator[dict[str, Any]]:
        """A stream of {"flows": [...]}, each with LINES_AN_ANSWER flows at most."""
        snapshot = self.snapshot()
        picked = await asyncio.to_thread(lambda: live_flows.select(snapshot, _test(filter, snapshot), sort, limit))
        lines = await asyncio.to_thread(live_flows.describe, picked)
        while some := await asyncio.to_thread(lambda: list(islice(lines, LINES_AN_ANSWER))):
            yield {"flows": [{"version": FORMAT, **line} for line in some]}

    async def layout(self, vip: str) -> dict[str, Any]:
        """The tables' layout, for clients that read it by `memory`, and the services of a VIP."""
        snapshot = self.snapshot()
        services = [service for service in snapshot.services if str(service.vip) == vip]
        names = [(service.name, backend.name) for service in services for backend in service.backends]
        return self._envelope(
            {
                "tables": VERSION,
                "sizes": asdict(snapshot.tables.sizes),
                "in_kernel": self.driver.kernel is not None,
                "services": [service.model_dump(mode="json") for service in services],
                "rows": [[*name, snapshot.rows[name]] for name in names],
                "interfaces": _interfaces(snapshot, [snapshot.rows[name] for name in names]),
            }
        )

    async def memory(self, region: str, at: int, length: int) -> str:
        """Bytes of a table, as base64.  They include secret keys; the socket's mode keeps other users out."""
        memory = self.snapshot().tables.memory.get(region)
        if memory is None or not 0 <= at <= at + length <= len(memory) or length > MOST_BYTES:
            raise LayoutError(region, at, length)
        return base64.b64encode(memory[at : at + length].tobytes()).decode()


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
