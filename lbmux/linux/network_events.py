"""Notifications that routes or interfaces changed, without details: the receiver reads everything again.

They come from rtnetlink(7), on the caller's event loop.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Self

from pyroute2.netlink import rtnl
from pyroute2.netlink.exceptions import NetlinkError

log = logging.getLogger(__name__)

LINKS = rtnl.RTMGRP_LINK
ROUTES = rtnl.RTMGRP_IPV4_ROUTE | rtnl.RTMGRP_IPV6_ROUTE
SETTLE_S, LONGEST_DELAY_S, MAX_TIME_SHARE = 0.02, 1.0, 0.1
"""Changes come in bursts, and are read SETTLE_S after an event. If reading takes long, the delay grows up to
LONGEST_DELAY_S, so that reading takes at most MAX_TIME_SHARE of the time."""
EVENT_BYTES, MOST_EVENTS = 1 << 16, 64


class NetworkEvents:
    """Awaits ``on_change`` shortly after an event of the ``groups`` (RTMGRP bits) in this network namespace.

    If ``on_change`` raises, because the network may change meanwhile, it is awaited again after LONGEST_DELAY_S.
    """

    def __init__(self, groups: int, on_change: Callable[[], Awaitable[None]]) -> None:
        self._groups, self._on_change = groups, on_change
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._socket.bind((0, self._groups))
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._on_event)
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _on_event(self) -> None:
        """Discard the events' contents: a burst may lose some (ENOBUFS), and everything is read again anyway."""
        self._changed.set()
        for _ in range(MOST_EVENTS):
            try:
                self._socket.recv(EVENT_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue

    async def _follow(self) -> None:
        delay_s, failure = SETTLE_S, ""
        while True:
            await self._changed.wait()
            await asyncio.sleep(delay_s)
            self._changed.clear()
            before, failure, begun = failure, "", time.monotonic()
            try:
                await self._on_change()
            except (OSError, NetlinkError) as error:
                failure = str(error)
                if failure != before:
                    log.warning("interfaces and routes cannot be read: %s", error)
            except Exception as error:
                failure = repr(error)
                if failure != before:
                    log.exception("a change of interfaces or routes was not handled")
            if failure:
                self._changed.set()
            took_s = LONGEST_DELAY_S if failure else time.monotonic() - begun
            delay_s = min(max(SETTLE_S, took_s / MAX_TIME_SHARE), LONGEST_DELAY_S)
