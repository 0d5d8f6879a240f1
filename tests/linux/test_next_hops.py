"""Next hops as the kernel has them, followed through what happens to routes, links and neighbours."""

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from lbmux.addresses import Address, mac_to_int
from lbmux.linux.network_messages import Link, learn_link, learn_neighbour
from lbmux.linux.next_hops import NextHop, NextHops, Watcher
from tests.frames.pair import Pair

PEER, OURS = ip_address("10.9.0.1"), ip_address("10.9.0.2")
BEHIND = ip_address("10.1.0.7")
SECOND_GATEWAY, SECOND_MAC = "10.9.0.66", "02:00:00:00:00:66"
NUD_PERMANENT, IFA_F_NODAD = 0x80, 2


class Watch:
    """NextHops in node b, and the last report for each destination."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.reported: dict[Address, NextHop | None] = {}
        self.hops = NextHops(self.reported.__setitem__)

    async def until(self, destination: Address, holds: Callable[[NextHop | None], bool], seconds: float = 8.0) -> Any:
        deadline = time.monotonic() + seconds
        while not holds(hop := self.reported.get(destination)):
            assert time.monotonic() < deadline, f"{destination}: still {hop}"
            await asyncio.sleep(0.01)
        return hop

    async def known(self, destination: Address) -> Any:
        return await self.until(destination, lambda hop: hop is not None)

    async def unknown(self, destination: Address) -> None:
        await self.until(destination, lambda hop: hop is None)

    def mac(self, node: str) -> int:
        return mac_to_int(self.pair.netlink(node, lambda ip, index: ip.get_links(index)[0].get_attr("IFLA_ADDRESS")))

    def route(self, how: str = "add", dst: str = "10.1.0.0/16", **route: Any) -> None:
        self.pair.netlink("b", lambda ip, index: ip.route(how, dst=dst, **route))

    def neighbour(self, address: str, mac: str) -> None:
        state = {"lladdr": mac, "state": NUD_PERMANENT}
        self.pair.netlink("b", lambda ip, index: ip.neigh("replace", dst=address, ifindex=index, **state))


Run = Callable[[Callable[[Watch], Awaitable[None]]], None]


@pytest.fixture
def run(pair: Pair) -> Run:
    async def watching(scenario: Callable[[Watch], Awaitable[None]]) -> None:
        watch = Watch(pair)
        async with watch.hops:
            await scenario(watch)

    return lambda scenario: pair.inside("b", lambda: asyncio.run(watching(scenario)))


@pytest.mark.root
def test_a_host_on_the_link_is_resolved_without_a_packet_from_the_mux(run: Run) -> None:
    async def scenario(watch: Watch) -> None:
        index = watch.pair.netlink("b", lambda ip, index: index)
        await watch.hops.watch([PEER])
        assert await watch.known(PEER) == NextHop(index, watch.mac("b"), watch.mac("a"), 1500, OURS)

    run(scenario)


@pytest.mark.root
def test_hosts_behind_a_gateway_share_its_neighbour(run: Run) -> None:
    async def scenario(watch: Watch) -> None:
        watch.route(gateway=str(PEER))
        hosts = [IPv4Address("10.1.0.0") + n for n in range(200)]
        await watch.hops.watch(hosts)
        assert {(await watch.known(host)).destination_mac for host in hosts} == {watch.mac("a")}
        there = watch.pair.netlink("b", lambda ip, index: ip.get_neighbours(ifindex=index, family=socket.AF_INET))
        assert [neighbour.get_attr("NDA_DST") for neighbour in there] == [str(PEER)]

    run(scenario)


def with_ipv6(watch: Watch) -> None:
    for node, address in (("a", "fd00:9::1"), ("b", "fd00:9::2")):

        def enable(node: str = node) -> None:
            Path(f"/proc/sys/net/ipv6/conf/{node}0/disable_ipv6").write_text("0")

        def add(ip: Any, index: int, address: str = address) -> None:
            ip.addr("add", index=index, address=address, prefixlen=64, flags=IFA_F_NODAD)

        watch.pair.inside(node, enable)
        watch.pair.netlink(node, add)


@pytest.mark.root
@pytest.mark.parametrize(
    ("destination", "route"),
    [
        ("fd00:9::1", None),
        ("fd00:77::5", {"dst": "fd00:77::/48", "gateway": "fd00:9::1"}),
        ("10.1.0.7", {"dst": "10.1.0.0/16", "via": {"family": socket.AF_INET6, "addr": "fd00:9::1"}}),
    ],
    ids=["on the link", "behind a router", "IPv4 behind an IPv6 router"],
)
def test_ipv6_neighbours_are_resolved_as_well(run: Run, destination: str, route: dict[str, Any] | None) -> None:
    async def scenario(watch: Watch) -> None:
        with_ipv6(watch)
        if route:
            watch.pair.netlink("b", lambda ip, index: ip.route("add", oif=index, **route))
        await watch.hops.watch([ip_address(destination)])
        assert (await watch.known(ip_address(destination))).destination_mac == watch.mac("a")

    run(scenario)


@pytest.mark.root
def test_a_host_without_a_route_is_found_once_there_is_one(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(watch: Watch) -> None:
        await watch.hops.watch([BEHIND])
        assert BEHIND not in watch.reported
        assert caplog.messages == [f"no route to host {BEHIND}: Network is unreachable"]
        watch.route(gateway=str(PEER))
        await watch.known(BEHIND)
        watch.route("del")
        await watch.unknown(BEHIND)

    run(scenario)


@pytest.mark.root
def test_a_route_by_another_gateway_is_followed(run: Run) -> None:
    async def scenario(watch: Watch) -> None:
        watch.neighbour(SECOND_GATEWAY, SECOND_MAC)
        watch.route(gateway=str(PEER))
        await watch.hops.watch([BEHIND])
        await watch.known(BEHIND)
        watch.route("replace", gateway=SECOND_GATEWAY)
        await watch.until(BEHIND, lambda hop: hop is not None and hop.destination_mac == mac_to_int(SECOND_MAC))
        watch.route("add", dst=f"{BEHIND}/32", gateway=str(PEER))
        await watch.until(BEHIND, lambda hop: hop is not None and hop.destination_mac == watch.mac("a"))

    run(scenario)


@pytest.mark.root
def test_a_neighbour_with_another_mac_is_followed(run: Run) -> None:
    async def scenario(watch: Watch) -> None:
        await watch.hops.watch([PEER])
        await watch.known(PEER)
        watch.neighbour(str(PEER), SECOND_MAC)
        await watch.until(PEER, lambda hop: hop is not None and hop.destination_mac == mac_to_int(SECOND_MAC))

    run(scenario)


@pytest.mark.root
def test_an_absent_neighbour_is_solicited_until_it_appears(run: Run) -> None:
    late = ip_address("10.9.0.77")

    async def scenario(watch: Watch) -> None:
        await watch.hops.watch([late])
        await asyncio.sleep(3.5)  # three probes, and the kernel gives up
        assert late not in watch.reported
        watch.pair.netlink("a", lambda ip, index: ip.addr("add", index=index, address=str(late), prefixlen=24))
        assert (await watch.known(late)).destination_mac == watch.mac("a")

    run(scenario)


@pytest.mark.root
def test_a_link_that_goes_down_takes_its_next_hops_along_and_brings_them_back(run: Run) -> None:
    async def scenario(watch: Watch) -> None:
        await watch.hops.watch([PEER])
        await watch.known(PEER)
        watch.pair.set_link("b", state="down")
        await watch.unknown(PEER)
        watch.pair.set_link("b", state="up")
        await watch.known(PEER)

    run(scenario)


@pytest.mark.root
def test_the_mtu_is_the_routes_or_else_the_links(run: Run) -> None:
    async def scenario(watch: Watch) -> None:
        watch.route(gateway=str(PEER), metrics={"mtu": 1400})
        await watch.hops.watch([PEER, BEHIND])
        assert [(await watch.known(host)).mtu for host in (PEER, BEHIND)] == [1500, 1400]
        watch.pair.set_link("b", mtu=9000)
        await watch.until(PEER, lambda hop: hop is not None and hop.mtu == 9000)
        assert watch.reported[BEHIND] is not None and watch.reported[BEHIND].mtu == 1400

    run(scenario)


@pytest.mark.root
def test_an_address_of_our_own_has_no_next_hop(run: Run) -> None:
    async def scenario(watch: Watch) -> None:
        await watch.hops.watch([OURS, PEER])
        await watch.known(PEER)
        assert OURS not in watch.reported

    run(scenario)


@pytest.mark.root
def test_a_destination_that_is_no_longer_watched_is_not_reported(run: Run) -> None:
    async def scenario(watch: Watch) -> None:
        watch.route(gateway=str(PEER))
        await watch.hops.watch([PEER, BEHIND])
        await watch.known(BEHIND)
        await watch.hops.watch([PEER])
        watch.reported.clear()
        watch.neighbour(str(PEER), SECOND_MAC)
        await watch.known(PEER)
        assert BEHIND not in watch.reported

    run(scenario)


@pytest.mark.root
def test_a_route_that_concerns_no_host_costs_no_lookup(run: Run) -> None:
    async def scenario(watch: Watch) -> None:
        watch.route(gateway=str(PEER))
        await watch.hops.watch([IPv4Address("10.1.0.0") + n for n in range(50)])
        await watch.known(BEHIND)
        await asyncio.sleep(0.3)  # the event of the route above
        looked_up: list[Address] = []
        look_up = watch.hops.watcher.look_up

        async def counted(destination: Address, is_new: bool = False) -> None:
            looked_up.append(destination)
            await look_up(destination, is_new)

        watch.hops.watcher.look_up = counted  # type: ignore[method-assign]
        watch.route(dst="10.200.0.0/24", gateway=str(PEER))
        watch.route(dst=f"{BEHIND}/32", gateway=str(PEER))
        async with asyncio.timeout(10):
            while not looked_up:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)  # others would follow it
        assert looked_up == [BEHIND]

    run(scenario)


@pytest.mark.root
def test_after_lost_events_everything_is_read_again(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(watch: Watch) -> None:
        watch.route(gateway=str(PEER))
        await watch.hops.watch([PEER, BEHIND])
        await watch.known(BEHIND)
        go_on = Event()
        watch.hops.loop.call_soon_threadsafe(go_on.wait, 20)

        def flood(ip: Any, index: int) -> None:
            for turn in range(6000):
                mac = f"02:00:00:00:00:{turn % 256:02x}"
                ip.neigh("replace", dst="10.9.0.99", ifindex=index, lladdr=mac, state=NUD_PERMANENT)

        watch.pair.netlink("b", flood)
        watch.neighbour(str(PEER), SECOND_MAC)  # this causes no event
        go_on.set()
        for host in (PEER, BEHIND):
            await watch.until(host, lambda hop: hop is not None and hop.destination_mac == mac_to_int(SECOND_MAC))
        assert any("events lost" in message for message in caplog.messages)
        watch.neighbour(str(PEER), "02:00:00:00:00:67")  # and events still arrive
        await watch.until(PEER, lambda hop: hop is not None and hop.destination_mac == mac_to_int("02:00:00:00:00:67"))

    with caplog.at_level(logging.WARNING, "lbmux.linux.next_hops"):
        run(scenario)


def test_a_host_dropped_during_its_lookup_is_not_taken_up_again() -> None:
    watcher = Watcher(lambda destination, hop: None)

    class Slow:
        async def route(self, command: str, dst: str) -> list[Any]:
            watcher.routes.clear()  # others called watch() in between
            return [Message("RTM_NEWROUTE", RTA_OIF=2)]

    watcher.routes[PEER] = None
    watcher.netlink = Slow()  # type: ignore[assignment]
    asyncio.run(watcher.look_up(PEER))
    assert watcher.routes == {}


class Message(dict[str, Any]):
    """A message as pyroute2 returns it: fields by index, attributes by ``get_attr``."""

    def __init__(self, event: str, fields: dict[str, Any] | None = None, **attributes: Any) -> None:
        super().__init__({"event": event, "family": socket.AF_UNSPEC, "index": 2, "flags": 1} | (fields or {}))
        self.get_attr = attributes.get


ETHERNET = {"IFLA_ADDRESS": SECOND_MAC, "IFLA_MTU": 1500}


def test_a_link_says_something_new_once() -> None:
    links: dict[int, Link] = {}
    assert learn_link(links, Message("RTM_NEWLINK", **ETHERNET))
    assert links == {2: Link(mac_to_int(SECOND_MAC), 1500, 1)}
    assert not learn_link(links, Message("RTM_NEWLINK", **ETHERNET))
    assert not learn_link(links, Message("RTM_NEWLINK", {"flags": 1 | 0x100}, **ETHERNET)), "promiscuous: no matter"
    assert learn_link(links, Message("RTM_NEWLINK", {"flags": 0}, **ETHERNET)), "down"
    assert learn_link(links, Message("RTM_DELLINK"))
    assert links == {}


def test_a_port_removed_from_its_bridge_is_still_a_link() -> None:
    links = {2: Link(1, 1500, 1)}
    assert not learn_link(links, Message("RTM_DELLINK", {"family": socket.AF_BRIDGE}, **ETHERNET))
    assert links == {2: Link(1, 1500, 1)}


def test_a_link_without_an_ethernet_address_has_none() -> None:
    links: dict[int, Link] = {}
    learn_link(links, Message("RTM_NEWLINK", IFLA_MTU=1480, IFLA_ADDRESS="0a:00:00:01"))
    assert links[2].mac is None


@pytest.mark.parametrize("event,state", [("RTM_DELNEIGH", 2), ("RTM_NEWNEIGH", 0x20), ("RTM_NEWNEIGH", 0x01)])
def test_a_neighbour_that_is_gone_failed_or_incomplete_has_no_mac(event: str, state: int) -> None:
    macs: dict[tuple[int, Address], int] = {(2, PEER): 7}
    fields = {"family": socket.AF_INET, "ifindex": 2, "state": state}
    assert learn_neighbour(macs, Message(event, fields, NDA_DST=str(PEER), NDA_LLADDR=SECOND_MAC))
    assert macs == {}


@pytest.mark.parametrize("state", [0x02, 0x04, 0x08, 0x10, 0x40, 0x80])
def test_a_neighbour_is_used_in_every_state_that_has_a_mac(state: int) -> None:
    macs: dict[tuple[int, Address], int] = {}
    fields = {"family": socket.AF_INET, "ifindex": 2, "state": state}
    message = Message("RTM_NEWNEIGH", fields, NDA_DST=str(PEER), NDA_LLADDR=SECOND_MAC)
    assert learn_neighbour(macs, message)
    assert macs == {(2, PEER): mac_to_int(SECOND_MAC)}
    assert not learn_neighbour(macs, message), "nothing new"


def test_a_bridges_forwarding_entry_is_not_a_neighbour() -> None:
    macs: dict[tuple[int, Address], int] = {}
    fields = {"family": socket.AF_BRIDGE, "ifindex": 2, "state": 0x80}
    assert not learn_neighbour(macs, Message("RTM_NEWNEIGH", fields, NDA_DST=str(PEER), NDA_LLADDR=SECOND_MAC))
    assert macs == {}
