"""Attaches the agent's egress program to every interface by which replies leave.

Tunnelled packets may arrive on one interface and replies leave by others (a two-armed host).
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from lbmux.frames.xdp import Kernel
from lbmux.linux.network_events import LINKS, ROUTES, NetworkEvents
from lbmux.linux.reply_interfaces import ReplyInterface, reply_interfaces

log = logging.getLogger(__name__)

NO_ETHERNET = "it has no Ethernet header; use --driver tun"


class Egress:
    """``about`` gets ``egress`` (names) and ``egress_missing`` (reasons), for `lbmux show runtime` and the doctor."""

    def __init__(self, kernel: Kernel, about: dict[str, Any]) -> None:
        self._kernel, self._about = kernel, about
        about["egress"], about["egress_missing"] = [], {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow links and routes; enter it before the programs are attached."""
        async with NetworkEvents(LINKS | ROUTES, self._refresh):
            with contextlib.suppress(NetlinkError):  # routes changed meanwhile, which is an event
                await self._refresh()
            yield

    async def _refresh(self) -> None:
        self._tell(await asyncio.to_thread(self._reach))

    def _reach(self) -> list[ReplyInterface]:
        interfaces = reply_interfaces()
        self._kernel.reach([one.ifindex for one in interfaces if one.has_ethernet])
        return interfaces

    def _tell(self, interfaces: list[ReplyInterface]) -> None:
        refused, own = self._kernel.egress_refused, self._kernel.interface
        missing = {one.name: NO_ETHERNET for one in interfaces if not one.has_ethernet}
        missing |= {one.name: str(refused[one.ifindex]) for one in interfaces if one.ifindex in refused}
        names = sorted({own, *(one.name for one in interfaces)} - missing.keys())
        if names != self._about["egress"]:
            log.info("replies are translated at %s", ", ".join(names))
        for name in missing.keys() - self._about["egress_missing"].keys():
            log.error("replies that leave by %s are not translated: %s", name, missing[name])
        self._about["egress"], self._about["egress_missing"] = names, missing
