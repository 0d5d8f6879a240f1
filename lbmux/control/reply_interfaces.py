"""The interfaces by which a host's replies may leave: those that a route leads to, followed as routes change.

The agent's kernel driver attaches its egress program to each of them (lbmux.programs.egress).
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple, Self

from pyroute2 import IPRoute
from pyroute2.netlink import rtnl

from lbmux.addresses import FAMILIES

GROUPS = rtnl.RTMGRP_LINK | rtnl.RTMGRP_IPV4_ROUTE | rtnl.RTMGRP_IPV6_ROUTE
SETTLE_S, COSTS_AT_MOST = 0.02, 0.1
"""Changes come in bursts: how long to wait before routes are read; and the share of time that reading them may take."""
EVENT_BYTES, MOST_EVENTS = 1 << 16, 64
RTN_UNICAST, IFF_LOOPBACK, ARPHRD_ETHER = 1, 0x8, 1
LINK_LOCAL, OWN_DEVICES = "fe80:", "lbmux"
"""Routes that lead to no client; and the agent's TUN devices (lbmux0, lbmux-up0)."""


class ReplyInterface(NamedTuple):
    """``has_ethernet``: frames that leave by it begin with an Ethernet header, which the egress program expects."""

    ifindex: int
    name: str
    has_ethernet: bool


def reply_interfaces() -> list[ReplyInterface]:
    """Those of this network namespace now, in the kernel's order."""
    with IPRoute() as ip:
        used = {index for family in FAMILIES.values() for route in ip.get_routes(family=family) for index in _by(route)}
        links = list(ip.get_links())
    found = (
        ReplyInterface(link["index"], link.get_attr("IFLA_IFNAME"), link["ifi_type"] == ARPHRD_ETHER)
        for link in links
        if link["index"] in used and not link["flags"] & IFF_LOOPBACK
    )
    return [one for one in found if not one.name.startswith(OWN_DEVICES)]


def _by(route: Any) -> Iterator[int]:
    """The interfaces of a route's next hops."""
    if route["type"] != RTN_UNICAST or (route.get_attr("RTA_DST") or "").startswith(LINK_LOCAL):
        return
    if index := route.get_attr("RTA_OIF"):
        yield index
    for hop in route.get_attr("RTA_MULTIPATH") or ():
        yield hop["oif"]


class RouteEvents:
    """Awaits ``on_change`` some time after a route or an interface of this namespace has changed."""

    def __init__(self, on_change: Callable[[], Awaitable[None]]) -> None:
        self._on_change = on_change
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._socket.bind((0, GROUPS))
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._heard)
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _heard(self) -> None:
        """What changed is not read: a burst may be cut short (ENOBUFS), and everything is looked at anyway."""
        self._changed.set()
        for _ in range(MOST_EVENTS):
            try:
                self._socket.recv(EVENT_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue

    async def _follow(self) -> None:
        took_s = 0.0
        while True:
            await self._changed.wait()
            await asyncio.sleep(max(SETTLE_S, took_s / COSTS_AT_MOST))
            self._changed.clear()
            begun = time.monotonic()
            with contextlib.suppress(OSError):
                await self._on_change()
            took_s = time.monotonic() - begun
