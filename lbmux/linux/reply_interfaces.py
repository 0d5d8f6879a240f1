"""The interfaces through which a host's replies may leave: those that a route uses.

The agent's kernel driver attaches its egress program to each of them (lbmux.daemons.egress).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pyroute2 import IPRoute

from lbmux.addresses import FAMILIES

RTN_UNICAST, IFF_LOOPBACK, ARPHRD_ETHER = 1, 0x8, 1
LINK_LOCAL, OWN_DEVICES = "fe80:", "lbmux"
"""Routes that do not lead to clients, and the agent's TUN devices (lbmux0, lbmux-up0)."""


class ReplyInterface(NamedTuple):
    """An interface. ``has_ethernet``: its frames have an Ethernet header, which the egress program expects."""

    ifindex: int
    name: str
    has_ethernet: bool


def reply_interfaces() -> list[ReplyInterface]:
    """Return the reply interfaces of this network namespace, in the kernel's order."""
    with IPRoute() as ip:
        used = {index for family in FAMILIES.values() for route in ip.get_routes(family=family) for index in _by(route)}
        links = list(ip.get_links())
    interfaces = (
        ReplyInterface(link["index"], link.get_attr("IFLA_IFNAME"), link["ifi_type"] == ARPHRD_ETHER)
        for link in links
        if link["index"] in used and not link["flags"] & IFF_LOOPBACK
    )
    return [one for one in interfaces if not one.name.startswith(OWN_DEVICES)]


def _by(route: Any) -> Iterator[int]:
    """Yield the interfaces of a route's next hops."""
    if route["type"] != RTN_UNICAST or (route.get_attr("RTA_DST") or "").startswith(LINK_LOCAL):
        return
    if index := route.get_attr("RTA_OIF"):
        yield index
    for hop in route.get_attr("RTA_MULTIPATH") or ():
        yield hop["oif"]
