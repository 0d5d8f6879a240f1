"""Runs lbmux.tables.socket_sync regularly: a pass over the host's sockets at the agent's start, then after pauses.

A thread lists the sockets. The entries are written between two batches of packets.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from lbmux.api.answers import ConnectionCounts
from lbmux.api.protocol import VERSION
from lbmux.api.requests import CountConnections
from lbmux.daemons.background_task import background_task
from lbmux.errors import LbmuxError
from lbmux.linux.host_sockets import HostSockets
from lbmux.plurals import counted
from lbmux.tables.agent_tables import AgentTables
from lbmux.tables.connection_counts import ConnectionPass, connections_by_backend, counted_by_pass
from lbmux.tables.socket_sync import AT_ONCE, SocketSync

log = logging.getLogger(__name__)

PASSES_PER_IDLE_TIME = 3
"""Passes within the shortest idle time."""
LEAST_S, MOST_S, MOST_CPU_SHARE = 0.25, 60.0, 0.02
"""Bounds of the pause between two passes, and the share of time that passes may take unless entries would expire."""


class SocketSyncTask:
    """Runs the passes, and counts the entries that it made under ``flows_restored``.

    ``sees_others`` is called when the DIPs in other namespaces whose sockets the agent sees have changed.
    """

    def __init__(
        self,
        agent: AgentTables,
        socket_sync: SocketSync,
        sockets: HostSockets,
        counts: Counter[str],
        sees_others: Callable[[], None],
    ) -> None:
        self._agent, self._socket_sync, self._sockets, self._counts = agent, socket_sync, sockets, counts
        self._sees_others = sees_others
        self._is_warned = False
        self.last_pass: ConnectionPass | None = None
        """What the last pass counted; None in mode local, where there are no passes."""

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

    async def _listed(self) -> NDArray[Any]:
        def listed() -> NDArray[Any]:
            self._sockets.look_for({source.dip for source in self._agent.sources})
            return self._sockets.all()

        try:
            return await asyncio.to_thread(listed)
        finally:
            self._sockets.close_retired()
            if self._agent.see_sockets_of(self._sockets.elsewhere):
                if self._sockets.elsewhere:
                    named = ", ".join(sorted(map(str, self._sockets.elsewhere)))
                    log.info("looking up the sockets of %s in other network namespaces of this host", named)
                self._sees_others()

    async def count(self, request: CountConnections) -> ConnectionCounts:
        """Answer with the live connections of each backend; raise LbmuxError if sockets cannot be listed."""
        try:
            counts = connections_by_backend(self._agent, self._socket_sync, await self._listed())
        except OSError as error:
            raise LbmuxError(f"cannot list the sockets of this host: {error}") from error
        return ConnectionCounts(VERSION, "agent", [(*key, number) for key, number in counts.items()])

    async def run_once(self) -> int:
        """Make one pass. Return the number of entries made."""
        if not self._agent.sources:
            return 0
        begun = time.monotonic()
        try:
            sockets = await self._listed()
        except OSError as error:
            if not self._is_warned:
                log.warning("cannot list the sockets of this host, so idle connections expire: %s", error)
            self._is_warned, self.last_pass = True, None
            return 0
        self._socket_sync.note_listeners(sockets)
        connections, entered = self._socket_sync.find(sockets), 0
        for first in range(0, len(connections.flows), AT_ONCE):
            entered += self._socket_sync.refresh(connections, first, AT_ONCE)
            await asyncio.sleep(0)
        self._socket_sync.remember(connections)
        self.last_pass = counted_by_pass(self._agent, begun, connections)
        if entered:
            log.info("restored the flow entries of %s", counted(entered, "connection"))
            self._counts["flows_restored"] += entered
        return entered
