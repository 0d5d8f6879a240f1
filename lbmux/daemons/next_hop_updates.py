"""Follows the next hops of all hosts that a mux sends to, and writes each change to every table that needs it."""

import contextlib
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Protocol

from lbmux.addresses import Address
from lbmux.daemons.packet_loop import PacketLoop
from lbmux.datapath.tables import LOOPBACK
from lbmux.linux.next_hops import NextHop, NextHops

log = logging.getLogger(__name__)


TO_OWN_HOST = NextHop(LOOPBACK, 1, 1, 0xFFFF)
"""The next hop of a host's mux to the host's agent. Nothing reads the MAC addresses, but 0 would mean unknown."""


class Tables(Protocol):
    """Tables with rows of backends: the mux's own, or those of its probes."""

    def destinations(self) -> set[Address]: ...

    def set_next_hop(self, destination: Address, hop: NextHop | None) -> None: ...


class NextHopUpdates:
    """``loop`` retries its pending frames when a next hop becomes known."""

    def __init__(self, tables: Sequence[Tables], loop: PacketLoop, own_host: Collection[Address] = ()) -> None:
        """``own_host``: addresses at which the agent of the mux's own host takes packets."""
        self._tables, self._loop, self._own_host = tables, loop, own_host
        self._next_hops = NextHops(self._changed)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        for destination in self._own_host:
            for one in self._tables:
                one.set_next_hop(destination, TO_OWN_HOST)
        async with self._next_hops:
            await self.watch()
            yield

    async def watch(self) -> None:
        """Watch the hosts that the tables name by now, and no others."""
        destinations = set[Address]().union(*(one.destinations() for one in self._tables))
        await self._next_hops.watch(destinations - set(self._own_host))

    def _changed(self, destination: Address, hop: NextHop | None) -> None:
        for one in self._tables:
            one.set_next_hop(destination, hop)
        log.info("next hop of %s: %s", destination, hop or "unknown")
        if hop is not None:
            self._loop.retry()
