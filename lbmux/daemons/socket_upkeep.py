"""Keeps flow entries for the connections of an agent's host: a pass over its sockets at the start, then regularly.

lbmux.tables.upkeep decides which entries to write.  A thread lists the sockets; the entries are written between two
batches of packets.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator

from lbmux.linux.sock_diag import Connections
from lbmux.tables.agent_tables import AgentTables
from lbmux.tables.upkeep import AT_ONCE, Upkeep

log = logging.getLogger(__name__)

PASSES_PER_IDLE_TIME = 3
"""Passes within the shortest idle time."""
LEAST_S, MOST_S, MOST_CPU_SHARE = 0.25, 60.0, 0.02
"""Bounds of the pause between two passes, in seconds; the share of time that passes may take, where entries allow."""


class SocketUpkeep:
    """``connections``: used by no other part; ``counts`` gets ``flows_restored``, the entries that passes made."""

    def __init__(self, agent: AgentTables, upkeep: Upkeep, connections: Connections, counts: Counter[str]) -> None:
        self._agent, self._upkeep, self._connections, self._counts = agent, upkeep, connections, counts
        self._is_warned = False

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
        """Short enough that no entry expires between two passes; after slow passes, none of a flow seen twice.

        ``took_s``: the duration of the last pass, which grows while code compiles or the machine is busy.
        """
        idle = [service.idle for service, _ in self._agent.served]
        trusted = min((limit for one in idle for limit in (one.tcp_s, one.fin_s, one.udp_s)), default=MOST_S)
        longest = trusted / PASSES_PER_IDLE_TIME
        wanted = min([longest, *(one.untrusted_s / PASSES_PER_IDLE_TIME for one in idle)])
        return min(MOST_S, max(LEAST_S, wanted, min(longest, took_s / MOST_CPU_SHARE)))

    async def run_once(self) -> int:
        """One pass; returns the number of entries made."""
        if not self._agent.sources:
            return 0
        try:
            sockets = await asyncio.to_thread(self._connections.all)
        except OSError as error:
            if not self._is_warned:
                log.warning("the kernel does not tell which connections there are, so idle ones expire: %s", error)
            self._is_warned = True
            return 0
        self._upkeep.note_listeners(sockets)
        found, entered = self._upkeep.find(sockets), 0
        for first in range(0, len(found.flows), AT_ONCE):
            entered += self._upkeep.keep(found, first, AT_ONCE)
            await asyncio.sleep(0)
        self._upkeep.remember(found)
        if entered:
            log.info("connections of this host without a flow entry: %d have one again", entered)
            self._counts["flows_restored"] += entered
        return entered
