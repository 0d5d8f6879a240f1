"""Follows the next hops of all hosts that a mux sends to, and writes each change to every table that needs it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Protocol

from lbmux.addresses import Address
from lbmux.daemons.packet_loop import PacketLoop
from lbmux.linux.next_hops import NextHop, NextHops, to_own_host

log = logging.getLogger(__name__)


class Tables(Protocol):
    """Tables with rows of backends: the mux's own, or those of its probes."""

    def destinations(self) -> set[Address]: ...

    def set_next_hop(self, destination: Address, hop: NextHop | None) -> None: ...


class NextHopUpdates:
    """``loop`` retries its pending frames when a next hop becomes known."""

    def __init__(self, tables: Sequence[Tables], loop: PacketLoop) -> None:
        self._tables, self._loop = tables, loop
        self._own_host = frozenset[Address]()
        self._next_hops = NextHops(self._changed)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self._next_hops:
            await self.watch()
            yield

    async def watch(self) -> None:
        """Watch the hosts that the tables name by now, and no others."""
        destinations = set[Address]().union(*(one.destinations() for one in self._tables))
        await self._next_hops.watch(destinations - self._own_host)

    async def set_own_host(self, destinations: Collection[Address], interface: str) -> None:
        """Send packets to these addresses, at which the agent of the mux's own host takes them, to that agent."""
        hop = await asyncio.to_thread(to_own_host, interface)
        self._own_host = frozenset(destinations)
        for destination in destinations:
            for one in self._tables:
                one.set_next_hop(destination, hop)

    def _changed(self, destination: Address, hop: NextHop | None) -> None:
        for one in self._tables:
            one.set_next_hop(destination, hop)
        log.info("next hop of %s: %s", destination, hop or "unknown")
        if hop is not None:
            self._loop.retry()
