"""A node's announcements with the pool's overrides of routes, and those that were given here without a manager."""

import logging
import time
from collections.abc import Callable

from lbmux.bgp.announced import UNCHANGED, Commands
from lbmux.bgp.announcer import Announcer
from lbmux.manager.api_models import LocalRoute
from lbmux.manager.route_overrides import in_force, stored_form

log = logging.getLogger(__name__)


class PoolRoutes:
    """``pools`` returns what the node has from the pool; the announcer has it from its start on."""

    def __init__(self, announcer: Announcer, pools: Callable[[], Commands]) -> None:
        self._announcer, self._pools = announcer, pools
        announcer.commands = pools()

    def local(self) -> tuple[LocalRoute, ...]:
        """Return what was withdrawn or announced here while no manager was connected."""
        pools, own, now = self._pools(), self._announcer.commands, time.time()
        changes = {vip: (own.get(vip, UNCHANGED), pools.get(vip, UNCHANGED)) for vip in own.keys() | pools.keys()}
        return tuple(
            LocalRoute(vip=vip, announcement=stored_form(wanted), held=stored_form(held), since=now)
            for vip, (wanted, held) in changes.items() if wanted != held
        )  # fmt: skip

    async def follow(self, pools: Commands) -> None:
        """Announce as the pool says."""
        if self._announcer.commands == pools:
            return
        for one in self.local():
            if pools.get(one.vip, UNCHANGED) != in_force(one.announcement):
                log.warning("%s: the manager's state replaces a local override of routes", one.vip or "all VIPs")
        await self._announcer.command(pools)
