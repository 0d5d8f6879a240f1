"""Polls the muxes of a pool for the page: totals once an interval, services and backends as often as the pool allows.

The totals cost a mux the same for any size of pool.  All its services and backends cost it about 0.1 s of CPU time for
each thousand backends, so a second passes between two polls for each thousand.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lbmux.api.channel import ControlTarget
from lbmux.api.control_paths import named_targets
from lbmux.tools.web.mux_status import MuxStatus, MuxSummary, poll, poll_summary
from lbmux.tools.web.pool_history import PoolHistory
from lbmux.tools.web.pool_overview import services_overview
from lbmux.tools.web.pool_status import document

PAUSE_A_BACKEND_S = 0.001
MOST_THREADS = 16
"""Threads of one poller; muxes that are slow to answer take up one each."""
Result = TypeVar("Result")


@dataclass
class PoolPoller:
    """What is known of the muxes at ``places``, which is asked again for each poll."""

    places: Callable[[], Sequence[ControlTarget]]
    interval_s: float
    history: PoolHistory = field(default_factory=PoolHistory)
    summaries: Sequence[MuxSummary] = ()
    statuses: Sequence[MuxStatus] = ()
    details: dict[str, Any] | None = None
    """The document of the last poll of services and backends (pool_status), None before the first."""
    services: dict[str, Any] | None = None
    """What the overview needs of them."""
    details_at: float = 0.0
    """When that was, in seconds since 1970."""
    _next_summaries: float = float("-inf")
    _next_details: float = float("-inf")
    _summarising: asyncio.Lock = field(default_factory=asyncio.Lock)
    _detailing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _task: "asyncio.Task[dict[str, Any]] | None" = None
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(MOST_THREADS))

    async def in_thread(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function that waits for a mux, in a thread of this poller's own: a manager needs its others."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def poll_summaries(self) -> None:
        """Poll the totals, at most once an interval for all callers together."""
        async with self._summarising:
            now = time.monotonic()
            if now < self._next_summaries:
                return
            self.summaries = await asyncio.gather(
                *(
                    self.in_thread(poll_summary, name, place, self.history.last(name))
                    for name, place in named_targets(await self.in_thread(self.places)).items()
                )
            )
            for one in self.summaries:
                if one.history is not None:
                    self.history.add(one.name, one.history)
            self._next_summaries = now + self.interval_s * 0.9

    def refresh_details(self) -> None:
        """Start a poll of services and backends if none is under way, and do not wait for it."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self.poll_details())

    async def poll_details(self) -> dict[str, Any]:
        """Return the pool's services and backends, polled again if they may be."""
        async with self._detailing:
            begun = time.monotonic()
            if self.details is None or begun >= self._next_details:
                is_first, places = self.details is None, named_targets(await self.in_thread(self.places)).items()
                statuses = await asyncio.gather(*(self.in_thread(poll, *mux) for mux in places))
                self.details = await self.in_thread(document, statuses, self.statuses)
                self.services = await self.in_thread(services_overview, self.details["services"])
                self.statuses, self.details_at = statuses, time.time()
                pause_s = self.interval_s * 0.9
                if not is_first:  # rates are known from the second poll on
                    pause_s = max(pause_s, self.services["counts"]["backends"] * PAUSE_A_BACKEND_S)
                self._next_details = begun + pause_s
            return self.details
