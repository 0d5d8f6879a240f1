"""The passes of an agent that translates over its host's sockets (lbmux.tables.upkeep): one at the start, then often.

The sockets are asked for in a thread; what is written to the flow table is written between two batches of packets.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable

from lbmux.linux.sock_diag import Connections
from lbmux.tables.agent_tables import AgentTables
from lbmux.tables.upkeep import AT_ONCE, Upkeep

log = logging.getLogger(__name__)

SHARE = 3
"""Passes in the shortest idle time."""
LEAST_S, MOST_S, COSTS_AT_MOST = 0.25, 60.0, 0.02
"""Between two passes; and the share of time that they may take, as long as entries seen twice do not idle out."""


class Keeping:
    """``connections``: used by nobody else; ``count``: told how many entries a pass made."""

    def __init__(
        self, agent: AgentTables, upkeep: Upkeep, connections: Connections, count: Callable[[int], None] | None = None
    ) -> None:
        self._agent, self._upkeep, self._connections, self.count = agent, upkeep, connections, count
        self._is_told = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            begun = time.monotonic()
            await self.run_once()
            await asyncio.sleep(self.pause_s(time.monotonic() - begun))

    def pause_s(self, took_s: float = 0.0) -> float:
        """So short that no entry idles out between two passes; of slow passes, none that was seen twice.

        ``took_s``: the last pass; that may include compiling, or a busy machine.
        """
        idle = [service.idle for service, _ in self._agent.served]
        longest = min((limit for one in idle for limit in (one.tcp_s, one.fin_s, one.udp_s)), default=MOST_S) / SHARE
        wanted = min([longest, *(one.untrusted_s / SHARE for one in idle)])
        return min(MOST_S, max(LEAST_S, wanted, min(longest, took_s / COSTS_AT_MOST)))

    async def run_once(self) -> int:
        """How many entries were made."""
        if not self._agent.sources:
            return 0
        try:
            sockets = await asyncio.to_thread(self._connections.all)
        except OSError as error:
            if not self._is_told:
                log.warning("the kernel does not tell which connections there are, so idle ones expire: %s", error)
            self._is_told = True
            return 0
        self._upkeep.note_listeners(sockets)
        found, entered = self._upkeep.find(sockets), 0
        for first in range(0, len(found.flows), AT_ONCE):
            entered += self._upkeep.keep(found, first, AT_ONCE)
            await asyncio.sleep(0)
        self._upkeep.remember(found)
        if entered:
            log.info("connections of this host without a flow entry: %d have one again", entered)
            if self.count is not None:
                self.count(entered)
        return entered
