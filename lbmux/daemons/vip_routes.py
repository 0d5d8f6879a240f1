"""The routes of a mux's VIPs: announced after a commit of the tables, withdrawn before a VIP leaves them.

A VIP that is a black hole, and whose flood still overloads the mux, is withdrawn or announced as a black hole.
"""

from collections.abc import Collection, Iterator

from lbmux.addresses import Address
from lbmux.bgp.announcer import Announcer
from lbmux.bgp.bgp_settings import Route, prefixes_of, routes_of
from lbmux.config.models import Config
from lbmux.tables.mux_tables import MuxTables


class VipRoutes:
    """Connects an announcer to the tables; without an announcer it does nothing."""

    def __init__(self, announcer: Announcer | None, mux: MuxTables) -> None:
        self._announcer, self._mux = announcer, mux
        self._is_withdrawn = False
        self._upstream: frozenset[Address] = frozenset()

    async def withdraw_removed(self, after: Config) -> bool:
        """Withdraw VIPs that ``after`` lacks, while they are still served; returns whether there were any."""
        if self._announcer is None or self._mux.config is None:
            return False
        stay = prefixes_of(after)
        if prefixes_of(self._mux.config) <= stay:
            return False
        await self._announce(frozenset(route for route in self._routes(self._mux.config) if route.prefix in stay))
        return True

    async def announce(self, config: Config) -> None:
        """Announce the VIPs of ``config``, the one in the tables; nothing more after ``withdraw``."""
        await self._announce(self._routes(config))

    async def drop_upstream(self, vips: Collection[Address]) -> None:
        """Have routers drop the packets to exactly these VIPs, as the configuration's ``black_hole.upstream`` says."""
        if self._upstream != frozenset(vips) and self._mux.config is not None:
            self._upstream = frozenset(vips)
            await self.announce(self._mux.config)

    def _routes(self, config: Config) -> frozenset[Route]:
        return frozenset(self._without_flooded(config))

    def _without_flooded(self, config: Config) -> Iterator[Route]:
        for route in routes_of(config):
            if route.prefix.network_address not in self._upstream:
                yield route
            elif config.black_hole.upstream == "blackhole":
                yield route._replace(is_black_hole=True)

    async def _announce(self, routes: frozenset[Route]) -> None:
        if self._announcer is not None and not self._is_withdrawn:
            await self._announcer.announce(routes)

    async def withdraw(self) -> None:
        """Withdraw every VIP for good: a backend's state that changes while the mux drains announces none again."""
        self._is_withdrawn = True
        if self._announcer is not None:
            await self._announcer.withdraw()
