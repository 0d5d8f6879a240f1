"""Polls the muxes of a pool for the page: totals once an interval, services and backends as often as they allow.

The totals cost a mux the same for any size of pool.  All its services and backends cost it milliseconds for each
thousand, so they are read at most so often that this takes a tenth of the time.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lbmux.api.channel import Place
from lbmux.api.control_paths import named_places
from lbmux.tools.web.mux_status import MuxStatus, MuxSummary, poll, poll_summary
from lbmux.tools.web.pool_history import PoolHistory
from lbmux.tools.web.pool_overview import digest
from lbmux.tools.web.pool_status import document

MOST_SHARE = 0.1


@dataclass
class PoolPoller:
    """What is known of the muxes behind these sockets."""

    controls: Sequence[Place]
    interval_s: float
    history: PoolHistory = field(default_factory=PoolHistory)
    summaries: Sequence[MuxSummary] = ()
    statuses: Sequence[MuxStatus] = ()
    details: dict[str, Any] | None = None
    """The document of the last poll of services and backends (pool_status), None before the first."""
    digest: dict[str, Any] | None = None
    """What the overview needs of them."""
    details_at: float = 0.0
    """When that was, in seconds since 1970."""
    _next_summaries: float = float("-inf")
    _next_details: float = float("-inf")
    _summarising: asyncio.Lock = field(default_factory=asyncio.Lock)
    _detailing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _task: "asyncio.Task[dict[str, Any]] | None" = None

    async def poll_summaries(self) -> None:
        """Poll the totals, at most once an interval for all callers together."""
        async with self._summarising:
            now = time.monotonic()
            if now < self._next_summaries:
                return
            self.summaries = await asyncio.gather(
                *(
                    asyncio.to_thread(poll_summary, name, place, self.history.last(name))
                    for name, place in named_places(self.controls).items()
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
                is_first, places = self.details is None, named_places(self.controls).items()
                statuses = await asyncio.gather(*(asyncio.to_thread(poll, *mux) for mux in places))
                self.details = await asyncio.to_thread(document, statuses, self.statuses)
                self.digest = await asyncio.to_thread(digest, self.details["services"])
                self.statuses, self.details_at = statuses, time.time()
                took = time.monotonic() - begun
                pause_s = self.interval_s * 0.9  # at first: rates are known from the second poll on
                self._next_details = begun + (pause_s if is_first else max(pause_s, took / MOST_SHARE))
            return self.details
