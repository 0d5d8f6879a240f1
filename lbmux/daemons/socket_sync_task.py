"""Runs lbmux.tables.socket_sync regularly: a pass over the host's sockets at the agent's start, then after pauses.

A thread lists the sockets. The entries are written between two batches of packets.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter

from lbmux.daemons.background_task import background_task
from lbmux.linux.sock_diag import Connections
from lbmux.plurals import counted
from lbmux.tables.agent_tables import AgentTables
from lbmux.tables.socket_sync import AT_ONCE, SocketSync

log = logging.getLogger(__name__)

PASSES_PER_IDLE_TIME = 3
"""Passes within the shortest idle time."""
LEAST_S, MOST_S, MOST_CPU_SHARE = 0.25, 60.0, 0.02
"""Bounds of the pause between two passes, and the share of time that passes may take unless entries would expire."""


class SocketSyncTask:
    """Runs the passes. It owns ``connections``, and counts the entries that it made under ``flows_restored``."""

    def __init__(
        self, agent: AgentTables, socket_sync: SocketSync, connections: Connections, counts: Counter[str]
    ) -> None:
        self._agent, self._socket_sync, self._connections, self._counts = agent, socket_sync, connections, counts
        self._is_warned = False

    def running(self) -> contextlib.AbstractAsyncContextManager[None]:
        return background_task(self._follow())

    async def _follow(self) -> None:
        while True:
            begun = time.monotonic()
            await self.run_once()
            await asyncio.sleep(self.pause_s(time.monotonic() - begun))

    def pause_s(self, took_s: float = 0.0) -> float:
        """Return the pause until the next pass, so short that no entry expires between two passes.

        ``took_s`` is the duration of the last pass, which grows while code compiles or the machine is busy. After slow
        passes the pause is longer, but entries of flows seen twice still do not expire.
        """
        idle = [service.idle for service, _ in self._agent.served]
        trusted = min((limit for one in idle for limit in (one.tcp_s, one.fin_s, one.udp_s)), default=MOST_S)
        longest = trusted / PASSES_PER_IDLE_TIME
        wanted = min([longest, *(one.untrusted_s / PASSES_PER_IDLE_TIME for one in idle)])
        return min(MOST_S, max(LEAST_S, wanted, min(longest, took_s / MOST_CPU_SHARE)))

    async def run_once(self) -> int:
        """Make one pass. Return the number of entries made."""
        if not self._agent.sources:
            return 0
        try:
            sockets = await asyncio.to_thread(self._connections.all)
        except OSError as error:
            if not self._is_warned:
                log.warning("cannot list the sockets of this host, so idle connections expire: %s", error)
            self._is_warned = True
            return 0
        self._socket_sync.note_listeners(sockets)
        found, entered = self._socket_sync.find(sockets), 0
        for first in range(0, len(found.flows), AT_ONCE):
            entered += self._socket_sync.refresh(found, first, AT_ONCE)
            await asyncio.sleep(0)
        self._socket_sync.remember(found)
        if entered:
            log.info("restored the flow entries of %s", counted(entered, "connection"))
            self._counts["flows_restored"] += entered
        return entered
