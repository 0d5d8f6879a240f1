"""The routes of a mux's VIPs: announced after a commit of the tables, withdrawn before a VIP leaves them."""

from lbmux.bgp.announcer import Announcer
from lbmux.bgp.bgp_settings import prefixes_of, routes_of
from lbmux.config.models import Config
from lbmux.tables.mux_tables import MuxTables


class VipRoutes:
    """Connects an announcer to the tables; without an announcer it does nothing."""

    def __init__(self, announcer: Announcer | None, mux: MuxTables) -> None:
        self._announcer, self._mux = announcer, mux

    async def withdraw_removed(self, after: Config) -> bool:
        """Withdraw VIPs that ``after`` lacks, while they are still served; returns whether there were any."""
        if self._announcer is None or self._mux.config is None:
            return False
        stay = prefixes_of(after)
        if prefixes_of(self._mux.config) <= stay:
            return False
        await self._announcer.announce(
            frozenset(route for route in routes_of(self._mux.config) if route.prefix in stay)
        )
        return True

    async def announce(self, config: Config) -> None:
        """Announce the VIPs of ``config``, the one in the tables."""
        if self._announcer is not None:
            await self._announcer.announce(routes_of(config))
