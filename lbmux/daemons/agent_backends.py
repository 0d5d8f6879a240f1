"""The backends of an agent's host: overrides add and remove them, and a removed one stays until its last flow ends.

Muxes decide which backend gets new flows, so drain, disable and weights apply there.
"""

import contextlib
from collections.abc import Callable

from lbmux.api.answers import BackendHealth, Health, HealthLine
from lbmux.api.control_server import Handler, Kind
from lbmux.api.protocol import VERSION
from lbmux.api.requests import GetHealth
from lbmux.backends.tracker import states
from lbmux.daemons.agent_health import AgentHealth
from lbmux.daemons.drain_watch import DrainWatch
from lbmux.daemons.override_handlers import OverrideHandlers
from lbmux.daemons.reloader import Reloader
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

    def handlers(self) -> dict[Kind, Handler]:
        overrides = OverrideHandlers(self._reloader, "agent", self._states, self._drained.forget, AGENT_OVERRIDES)
        return {GetHealth: self.health, **overrides.handlers()}

    async def health(self, request: GetHealth) -> Health:
        """The states of the backends that are in the tables."""
        rows = self._snapshot().rows
        states = [state for state in self._states() if state.key in rows]
        return Health(VERSION, "agent", [HealthLine(**vars(one), drained=one.key in self._drained) for one in states])

    def _states(self) -> list[BackendHealth]:
        reloader = self._reloader
        lines = states(reloader.config, reloader.wanted, reloader.overrides, self._health.checkers)
        return [BackendHealth(**line) for line in lines]
