"""Follows the next hops of all hosts that a mux sends to, and writes each change to every table that needs it."""

import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from lbmux.addresses import Address
from lbmux.daemons.packet_loop import PacketLoop
from lbmux.linux.next_hops import NextHop, NextHops

log = logging.getLogger(__name__)


class Tables(Protocol):
    """Tables with rows of backends: the mux's own, or those of its probes."""

    def destinations(self) -> set[Address]: ...

    def set_next_hop(self, destination: Address, hop: NextHop | None) -> None: ...


class NextHopUpdates:
    """``loop`` retries its pending frames when a next hop becomes known."""

    def __init__(self, tables: Sequence[Tables], loop: PacketLoop) -> None:
        self._tables, self._loop = tables, loop
        self._next_hops = NextHops(self._changed)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self._next_hops:
            await self.watch()
            yield

    async def watch(self) -> None:
        """Watch the hosts that the tables name by now, and no others."""
        await self._next_hops.watch(set[Address]().union(*(one.destinations() for one in self._tables)))

    def _changed(self, destination: Address, hop: NextHop | None) -> None:
        for one in self._tables:
            one.set_next_hop(destination, hop)
        log.info("next hop of %s: %s", destination, hop or "unknown")
        if hop is not None:
            self._loop.retry()
