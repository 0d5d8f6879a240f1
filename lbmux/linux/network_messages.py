"""Decodes the kernel's netlink messages about links, neighbours and routes to the fields that next hops depend on."""

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple

from lbmux.addresses import Address, mac_to_int

USABLE = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80  # REACHABLE, STALE, DELAY, PROBE, NOARP, PERMANENT
UP = 0x1 | 0x40 | 0x10000  # IFF_UP, IFF_RUNNING, IFF_LOWER_UP
ANY_ADDRESS: dict[int, Address] = {socket.AF_INET: IPv4Address(0), socket.AF_INET6: IPv6Address(0)}


@dataclass(frozen=True)
class Route:
    """The route to a destination: through the neighbour ``via`` on an interface."""

    interface_index: int
    via: Address
    mtu: int | None
    preferred_source: Address | None


class Link(NamedTuple):
    """The attributes of a link that next hops depend on. ``mac`` is None if it has no Ethernet address."""

    mac: int | None
    mtu: int
    flags: int


def learn_link(links: dict[int, Link], message: Any) -> bool:
    """Update ``links`` from a link's event. Return whether anything changed."""
    if message["family"] == socket.AF_BRIDGE:
        return False  # about a bridge port, not the link
    index, known = message["index"], links.get(message["index"])
    if message["event"] == "RTM_DELLINK":
        links.pop(index, None)
        return known is not None
    mac = message.get_attr("IFLA_ADDRESS")
    is_ethernet = bool(mac) and len(mac) == 17
    links[index] = Link(mac_to_int(mac) if is_ethernet else None, message.get_attr("IFLA_MTU"), message["flags"] & UP)
    return links[index] != known


def learn_neighbour(macs: dict[tuple[int, Address], int], message: Any) -> bool:
    """Update ``macs`` from a neighbour's event. Return whether its MAC address changed. An unusable one is removed."""
    destination, mac = message.get_attr("NDA_DST"), message.get_attr("NDA_LLADDR")
    if not destination or message["family"] not in ANY_ADDRESS:
        return False  # a bridge's forwarding entries are not IP neighbours
    key = (message["ifindex"], ip_address(destination))
    usable = message["event"] == "RTM_NEWNEIGH" and message["state"] & USABLE and mac and len(mac) == 17
    known = macs.pop(key, None)
    if usable:
        macs[key] = mac_to_int(mac)
    return macs.get(key) != known


def route_of(message: Any, destination: Address) -> Route:
    """Return the route to a destination from the kernel's answer."""
    gateway, source = message.get_attr("RTA_GATEWAY"), message.get_attr("RTA_PREFSRC")
    other_family = message.get_attr("RTA_VIA")  # an IPv4 route via an IPv6 router, RFC 5549
    if other_family:
        gateway = other_family["addr"]
    metrics = message.get_attr("RTA_METRICS")
    return Route(
        message.get_attr("RTA_OIF"),
        ip_address(gateway) if gateway else destination,
        metrics.get_attr("RTAX_MTU") if metrics else None,
        ip_address(source) if source else None,
    )
