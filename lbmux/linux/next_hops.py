"""Next hops: the interface and MAC address for each host, from the kernel's routes and neighbours, kept up to date.

The kernel resolves neighbours (a request to *use* one makes it send ARP), and this module listens to its events.
Destinations behind one gateway share one neighbour, so a thousand hosts cost as much as one.
"""

import asyncio
import contextlib
import logging
import select
import threading
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Self

from pyroute2 import AsyncIPRoute, IPRoute
from pyroute2.netlink import rtnl
from pyroute2.netlink.exceptions import NetlinkError

from lbmux.addresses import Address, mac_from_int, mac_to_int
from lbmux.linux.network_messages import ANY_ADDRESS, Link, Route, learn_link, learn_neighbour, route_of
from lbmux.linux.prefixes import EVERYTHING, Prefix, prefix, within
from lbmux.wire.numbers import LOOPBACK

log = logging.getLogger(__name__)

LARGEST_MTU = 0xFFFF
"""The MTU of a path that never leaves the host, in bytes."""
NTF_USE = 1
GROUPS = rtnl.RTMGRP_LINK | rtnl.RTMGRP_NEIGH | rtnl.RTMGRP_IPV4_ROUTE | rtnl.RTMGRP_IPV6_ROUTE
SETTLE_S = 0.02
"""Route changes come in bursts. This is the delay before the routes are read again."""
REFRESH_S = 1.0
"""The interval for soliciting unresolved neighbours; resolved ones are confirmed every REFRESH_EVERY intervals."""
REFRESH_EVERY = 15


@dataclass(frozen=True)
class NextHop:
    """How to reach a host. MAC addresses are 48-bit numbers as loaded from the wire, ``mtu`` is in bytes."""

    interface_index: int
    source_mac: int
    destination_mac: int
    mtu: int
    preferred_source: Address | None = None

    def __str__(self) -> str:
        return f"{mac_from_int(self.destination_mac)} on interface {self.interface_index}, MTU {self.mtu}"


class NextHops:
    """Watches destinations and calls ``on_change(destination, hop or None)`` whenever a destination's hop changes.

    It runs in its own thread and event loop: pyroute2 does not run on uvloop, and a burst of events should not delay
    packets. ``on_change`` is called on the loop that entered the context.
    """

    def __init__(self, on_change: Callable[[Address, NextHop | None], None]) -> None:
        self._on_change = on_change
        self.loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="next-hops", daemon=True)

    async def __aenter__(self) -> Self:
        caller = asyncio.get_running_loop()

        def notify(destination: Address, hop: NextHop | None) -> None:
            caller.call_soon_threadsafe(self._on_change, destination, hop)

        self.watcher = Watcher(notify)
        self._thread.start()
        await self._on_loop(self.watcher.open())
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._on_loop(self.watcher.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        await asyncio.to_thread(self._thread.join)
        self.loop.close()

    async def watch(self, destinations: Iterable[Address]) -> None:
        """Watch exactly these from now on. Return when every route has been looked up and ARP has been requested."""
        await self._on_loop(self.watcher.watch(set(destinations)))

    async def _on_loop(self, work: Coroutine[Any, Any, None]) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))


class Watcher:
    """The implementation of NextHops, for one of asyncio's own event loops."""

    def __init__(self, on_change: Callable[[Address, NextHop | None], None]) -> None:
        self._on_change = on_change
        self.routes: dict[Address, Route | None] = {}
        self._macs: dict[tuple[int, Address], int] = {}
        self._links: dict[int, Link] = {}
        self._hops: dict[Address, NextHop | None] = {}
        self._stale: set[Prefix] = set()  # prefixes whose routes may have changed
        self._routes_changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Subscribe to the kernel's events, learn what it knows, and follow it from now on."""
        self._stack = contextlib.AsyncExitStack()
        self.netlink = await self._stack.enter_async_context(AsyncIPRoute())
        self._events = await self._stack.enter_async_context(AsyncIPRoute())
        await self._events.bind(GROUPS)
        self._waiting = select.poll()
        self._waiting.register(self._events.fileno(), select.POLLIN)
        await self._learn_all()
        work = (self._listen(), self._follow_routes(), self._refresh())
        self._tasks = [asyncio.create_task(task) for task in work]

    async def _learn_all(self) -> None:
        links: dict[int, Link] = {}
        macs: dict[tuple[int, Address], int] = {}
        async for message in await self.netlink.link("dump"):
            learn_link(links, message)
        async for message in await self.netlink.neigh("dump"):
            learn_neighbour(macs, message)
        self._links, self._macs = links, macs

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()

    async def watch(self, wanted: set[Address]) -> None:
        """Watch exactly these. Return when every route has been looked up and ARP has been requested."""
        for gone in self.routes.keys() - wanted:
            del self.routes[gone]
            self._hops.pop(gone, None)
        added = wanted - self.routes.keys()
        self.routes.update(dict.fromkeys(added))
        for destination in added:
            await self.look_up(destination, is_new=True)
        await self._solicit(pending_only=True)

    async def look_up(self, destination: Address, is_new: bool = False) -> None:
        """Ask the kernel for the route to a watched destination, and report a change."""
        route, reason = None, ""
        try:
            route = route_of((await self.netlink.route("get", dst=str(destination)))[0], destination)
        except NetlinkError as error:
            reason = str(error.args[1] if len(error.args) > 1 else error)
        if destination not in self.routes:
            return  # destination no longer watched
        if route is None and (is_new or self.routes[destination] is not None):
            log.warning("no route to host %s: %s", destination, reason)
        self.routes[destination] = route
        self._evaluate(destination)

    def _evaluate(self, destination: Address) -> None:
        """Combine route, link and neighbour into a next hop, and report a change."""
        route, hop = self.routes.get(destination), None
        if route is not None:
            link = self._links.get(route.interface_index)
            neighbour = self._macs.get((route.interface_index, route.via))
            if link is not None and link.mac is not None and neighbour is not None:
                mtu = route.mtu or link.mtu
                hop = NextHop(route.interface_index, link.mac, neighbour, mtu, route.preferred_source)
        if hop != self._hops.get(destination):
            self._hops[destination] = hop
            self._on_change(destination, hop)

    async def _listen(self) -> None:
        lost = False
        while True:  # pyroute2 ends the iteration with each datagram
            try:
                if lost and not self._has_more():
                    await self._learn_all()
                    self._evaluate_all()
                    self._change(EVERYTHING)
                    lost = False
                async for message in self._events.get():
                    self._on_event(message)
            except (NetlinkError, OSError) as error:  # the socket overflowed; the lost events are unknown
                log.warning("netlink events lost (%s): reading everything again", error)
                lost = True
                await asyncio.sleep(SETTLE_S)

    def _has_more(self) -> bool:
        """Return whether events are waiting. Until the socket is empty, the kernel drops more without reporting it."""
        return bool(self._waiting.poll(0)) or not self._events.msg_queue.root.empty()

    def _on_event(self, message: Any) -> None:
        event = message["event"]
        if event in ("RTM_NEWNEIGH", "RTM_DELNEIGH"):
            if learn_neighbour(self._macs, message):
                self._evaluate_all()
        elif event in ("RTM_NEWLINK", "RTM_DELLINK"):
            # A link that goes down loses its routes without an event, and multipath routes may change their next hop.
            if learn_link(self._links, message):
                self._change(EVERYTHING)
        elif event in ("RTM_NEWROUTE", "RTM_DELROUTE") and message["family"] in ANY_ADDRESS:
            network = message.get_attr("RTA_DST")
            address = ip_address(network) if network else ANY_ADDRESS[message["family"]]
            self._change({prefix(address, message["dst_len"])})

    def _change(self, prefixes: Iterable[Prefix]) -> None:
        self._stale.update(prefixes)
        self._routes_changed.set()

    def _evaluate_all(self) -> None:
        for destination in list(self.routes):
            self._evaluate(destination)

    async def _follow_routes(self) -> None:
        while True:
            await self._routes_changed.wait()
            await asyncio.sleep(SETTLE_S)
            self._routes_changed.clear()
            stale, self._stale = self._stale, set()
            for destination in within(list(self.routes), stale):
                if destination in self.routes:
                    await self.look_up(destination)
            await self._solicit(pending_only=True)

    async def _refresh(self) -> None:
        turn = 0
        while True:
            await asyncio.sleep(REFRESH_S)
            turn += 1
            if turn % REFRESH_EVERY == 0:  # rules and next hop objects change routes without a route event
                for destination in [destination for destination, route in self.routes.items() if route is None]:
                    await self.look_up(destination)
            await self._solicit(pending_only=turn % REFRESH_EVERY != 0)

    async def _solicit(self, pending_only: bool) -> None:
        """Make the kernel resolve unknown neighbours, or confirm known ones."""
        used = {(route.interface_index, route.via) for route in self.routes.values() if route is not None}
        for index, via in used:
            if pending_only and (index, via) in self._macs:
                continue
            with contextlib.suppress(NetlinkError):
                await self.netlink.neigh("replace", dst=str(via), ifindex=index, state=0, flags=NTF_USE)


def to_own_host(interface: str) -> NextHop:
    """Return the next hop from a mux to the agent on the same interface: frames as if they had arrived there."""
    with IPRoute() as ip:
        (link,) = ip.get_links(ip.link_lookup(ifname=interface)[0])
    mac = mac_to_int(link.get_attr("IFLA_ADDRESS"))
    return NextHop(LOOPBACK, mac, mac, LARGEST_MTU)
