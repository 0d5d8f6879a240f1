"""Samples a node's counters once a second, and answers requests for its history."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from lbmux.api import answers
from lbmux.api.control_server import Handler, Kind
from lbmux.api.protocol import VERSION
from lbmux.api.requests import GetHistory
from lbmux.api.status_tables import verdicts
from lbmux.daemons.background_task import background_task
from lbmux.metrics.recent_log import RecentLog
from lbmux.metrics.traffic_history import TrafficHistory, TrafficTotals
from lbmux.tables.snapshot import Snapshot

LATE_S = 0.01
"""How long after the turn of a second it is sampled: a timer may fire early."""


class TrafficSampler:
    """``program``: mux, agent or edge; ``in_kernel``: whether kernel programs process frames before user space."""

    def __init__(self, program: str, snapshot: Callable[[], Snapshot], in_kernel: Callable[[], bool]) -> None:
        self._program, self._snapshot, self._in_kernel = program, snapshot, in_kernel
        self._history, self._log = TrafficHistory(), RecentLog()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        with self._log:
            async with background_task(self._run()):
                yield

    async def _run(self) -> None:
        while True:
            now = time.time()
            totals = await asyncio.to_thread(traffic_totals, self._snapshot(), self._in_kernel())
            self._history.sample(int(now), totals)
            await asyncio.sleep(LATE_S + 1 - time.time() % 1)

    def handlers(self) -> dict[Kind, Handler]:
        return {GetHistory: self.history}

    async def history(self, request: GetHistory) -> answers.History:
        points, events = self._history.since(int(request.since)), self._log.since(request.since)
        return answers.History(VERSION, self._program, points, events)


def traffic_totals(snapshot: Snapshot, in_kernel: bool) -> TrafficTotals:
    """Return the counters of all services together; bytes include outer headers."""
    lines = verdicts(snapshot, in_kernel)
    sent = [line for line in lines if line.kind == "send"]
    drops = {line.verdict: line.packets for line in lines if line.kind == "drop" and line.packets}
    new_flows = None if snapshot.is_agent else int(snapshot.tables.traffic["flows"].sum())
    return TrafficTotals(sum(one.packets for one in sent), sum(one.bytes for one in sent), new_flows, drops)
