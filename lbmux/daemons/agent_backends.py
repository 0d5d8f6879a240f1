"""The backends of an agent's host: overrides add and remove them, and a removed one stays until its last flow ends.

Muxes decide which backend gets new flows, so drain, disable and weights are theirs.
"""

import contextlib
from collections.abc import Callable
from typing import Any

from lbmux.backends.tracker import states
from lbmux.daemons.agent_health import AgentHealth
from lbmux.daemons.drain_watch import DrainWatch
from lbmux.daemons.override_handlers import OverrideHandlers
from lbmux.daemons.reloader import Reloader
from lbmux.daemons.status_handlers import FORMAT
from lbmux.tables.live_flows import without_flows
from lbmux.tables.snapshot import Snapshot

AGENT_OVERRIDES = ("add", "remove", "enable")


class AgentBackends:
    """Answers requests about the backends of this host."""

    def __init__(self, reloader: Reloader, snapshot: Callable[[], Snapshot], health: AgentHealth) -> None:
        self._reloader, self._snapshot, self._health = reloader, snapshot, health
        self._drained = DrainWatch(reloader, snapshot, without_flows)

    def running(self) -> contextlib.AbstractAsyncContextManager[None]:
        return self._drained.running()

    def handlers(self) -> dict[str, Any]:
        overrides = OverrideHandlers(self._reloader, "agent", self._lines, self._drained.forget, AGENT_OVERRIDES)
        return {"health": self.health, **overrides.handlers()}

    async def health(self) -> dict[str, Any]:
        """The states of the backends that are in the tables."""
        rows = self._snapshot().rows
        keyed = [((line["service"], line["backend"]), line) for line in self._lines()]
        health = [line | {"drained": key in self._drained} for key, line in keyed if key in rows]
        return {"version": FORMAT, "program": "agent", "health": health}

    def _lines(self) -> list[dict[str, Any]]:
        return states(self._reloader.config, self._reloader.wanted, self._reloader.overrides, self._health.checkers)
