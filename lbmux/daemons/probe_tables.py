"""Tables for probes that go through the tunnel: rows of backends with their next hops, no flows, no Maglev slots."""

import asyncio
import dataclasses
from collections.abc import Iterable

from lbmux.addresses import Address
from lbmux.config.models import Config, Service
from lbmux.errors import TableError
from lbmux.linux.next_hops import NextHop
from lbmux.tables.mux_tables import MuxTables, sizes_for
from lbmux.targets.regions import Tables


class ProbeTables:
    """``mux``: the tables in use; None until the first are set.  Next hops stay when larger tables replace them."""

    def __init__(self, local: Iterable[Address]) -> None:
        """``local``: the mux's own addresses."""
        self.mux: MuxTables | None = None
        self._local = tuple(local)
        self._hops: dict[Address, NextHop | None] = {}
        self._bare: dict[str, tuple[Service, Service]] = {}
        """The services whose rows were last asked for, by name, and what `bare` makes of them."""

    def bare(self, services: Iterable[Service]) -> tuple[Service, ...]:
        """Return services with only their backends' rows; unchanged ones are the same objects as before."""
        known = self._bare
        self._bare = {
            one.name: known[one.name] if one.name in known and known[one.name][0] is one else (one, bare(one))
            for one in services
        }
        return tuple(found for _, found in self._bare.values())

    def destinations(self) -> set[Address]:
        """Return the hosts of all backends in the tables."""
        return self.mux.destinations() if self.mux is not None else set()

    def set_next_hop(self, destination: Address, hop: NextHop | None) -> None:
        self._hops[destination] = hop
        if self.mux is not None:
            self.mux.set_next_hop(destination, hop)

    async def fill(self, config: Config) -> MuxTables:
        """Return tables with the backends of ``config``.

        They are those in use, or new ones if these are too small.  The caller sets ``mux`` when new ones are ready.
        """
        mux = self.mux or self._new(config)
        try:
            plan = await asyncio.to_thread(mux.plan, config)
        except TableError:
            mux = self._new(config)
            plan = await asyncio.to_thread(mux.plan, config)
        mux.commit(plan)
        return mux

    def _new(self, config: Config) -> MuxTables:
        sizes = dataclasses.replace(sizes_for(config), buckets=1, slots=1)
        mux = MuxTables(Tables.allocate(sizes), *self._local)
        for destination, hop in self._hops.items():
            mux.set_next_hop(destination, hop)
        return mux


def bare(service: Service) -> Service:
    """Return a service with only its backends' rows: without weights no Maglev table is built."""
    backends = tuple(backend.model_copy(update={"weight": 0}) for backend in service.backends)
    return service.model_copy(
        update={"backends": backends, "allow": (), "deny": (), "quic": None, "port_to": None, "health": None}
    )
