"""The routes of a mux's VIPs: announced after a commit of the tables, withdrawn before a VIP leaves them."""

from lbmux.bgp.announcer import Announcer
from lbmux.bgp.bgp_settings import Route, prefixes_of, routes_of
from lbmux.config.models import Config
from lbmux.tables.mux_tables import MuxTables


class VipRoutes:
    """Connects an announcer to the tables; without an announcer it does nothing."""

    def __init__(self, announcer: Announcer | None, mux: MuxTables) -> None:
        self._announcer, self._mux = announcer, mux
        self._is_withdrawn = False

    async def withdraw_removed(self, after: Config) -> bool:
        """Withdraw VIPs that ``after`` lacks, while they are still served; returns whether there were any."""
        if self._announcer is None or self._mux.config is None:
            return False
        stay = prefixes_of(after)
        if prefixes_of(self._mux.config) <= stay:
            return False
        await self._announce(frozenset(route for route in routes_of(self._mux.config) if route.prefix in stay))
        return True

    async def announce(self, config: Config) -> None:
        """Announce the VIPs of ``config``, the one in the tables; nothing more after ``withdraw``."""
        await self._announce(routes_of(config))

    async def _announce(self, routes: frozenset[Route]) -> None:
        if self._announcer is not None and not self._is_withdrawn:
            await self._announcer.announce(routes)

    async def withdraw(self) -> None:
        """Withdraw every VIP for good: a backend's state that changes while the mux drains announces none again."""
        self._is_withdrawn = True
        if self._announcer is not None:
            await self._announcer.withdraw()
