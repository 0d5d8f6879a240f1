"""The lives of a host's backends at its agent: added and removed by command, and there until their last flow has gone.

Which backend gets new flows is the muxes' business: there they are drained, disabled and weighed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from lbmux.backends.tracker import states
from lbmux.daemons.agent_health import AgentHealth
from lbmux.daemons.drain_watch import DrainWatch
from lbmux.daemons.override_handlers import OverrideHandlers
from lbmux.daemons.reloader import Reloader
from lbmux.daemons.status_handlers import FORMAT
from lbmux.tables.live_flows import without_flows
from lbmux.tables.snapshot import Snapshot

HERE = ("add", "remove", "enable")


class AgentBackends:
    def __init__(self, reloader: Reloader, snapshot: Callable[[], Snapshot], health: AgentHealth) -> None:
        self._reloader, self._snapshot, self._health = reloader, snapshot, health
        self._drained = DrainWatch(reloader, snapshot, without_flows)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._drained.watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def handlers(self) -> dict[str, Any]:
        ordering = OverrideHandlers(self._reloader, "agent", self._lines, self._drained.forget, HERE)
        return {"health": self.health, **ordering.handlers()}

    async def health(self) -> dict[str, Any]:
        """Of the backends that are here."""
        rows = self._snapshot().rows
        keyed = [((line["service"], line["backend"]), line) for line in self._lines()]
        health = [line | {"drained": key in self._drained} for key, line in keyed if key in rows]
        return {"version": FORMAT, "program": "agent", "health": health}

    def _lines(self) -> list[dict[str, Any]]:
        return states(self._reloader.config, self._reloader.wanted, self._reloader.overrides, self._health.checkers)
