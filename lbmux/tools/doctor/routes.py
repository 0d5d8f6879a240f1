"""Checks of routes: the router's to the VIPs, and the hosts' for replies."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lbmux.addresses import FAMILIES, Address
from lbmux.tools.doctor.finding import Finding, fault, ok, warning
from lbmux.tools.doctor.situation import Situation

FAR = "203.0.113.1"
"""An address that nobody has (RFC 5737): the way to it is the way to clients at large."""


@dataclass(frozen=True)
class Way:
    """``mac``: the interface's own, if it has one."""

    interface: str
    via: Address
    mac: str | None


def way(destination: Address, source: Address | None = None) -> Way | None:
    """The interface and neighbour that the kernel would use; None where it has no route."""
    asked = {"dst": str(destination)} | ({"src": str(source)} if source else {})
    with IPRoute() as ip:
        try:
            found = ip.route("get", **asked)[0]
        except NetlinkError:
            return None
        link = ip.get_links(found.get_attr("RTA_OIF"))[0]
    gateway = found.get_attr("RTA_GATEWAY")
    via = ip_address(gateway) if gateway else destination
    return Way(link.get_attr("IFLA_IFNAME"), via, link.get_attr("IFLA_ADDRESS"))


def gateways(destination: Address) -> list[str] | None:
    """Of the route in the main table that is this address's; None where there is none."""
    with IPRoute() as ip:
        routes = list(ip.get_routes(family=FAMILIES[destination.version], table=254))
    fits = [
        (message["dst_len"], message)
        for message in routes
        if destination in ip_network(f"{message.get_attr('RTA_DST') or type(destination)(0)}/{message['dst_len']}")
    ]
    if not fits:
        return None
    best = max(fits, key=lambda pair: pair[0])[1]
    several = best.get_attr("RTA_MULTIPATH") or []
    return [hop.get_attr("RTA_GATEWAY") for hop in several] or [best.get_attr("RTA_GATEWAY")]


def spreading(situation: Situation) -> Iterator[Finding]:
    """The router's route to each VIP is by all muxes of the configuration, and by nobody else."""
    if situation.config is None:
        return
    for vip in situation.vips:
        found = gateways(vip)
        muxes = {str(mux) for mux in situation.config.muxes if mux.version == vip.version}
        mend = f"ip route replace {vip} {' '.join(f'nexthop via {mux}' for mux in sorted(muxes))}"
        if found is None:
            yield fault("spread", f"no route to the VIP {vip}", mend)
        elif not set(found) <= muxes:
            strangers = ", ".join(sorted(str(gateway) for gateway in set(found) - muxes))
            yield fault("spread", f"{vip} goes to {strangers}, which is none of the muxes", mend)
        elif set(found) < muxes:
            missing = ", ".join(sorted(muxes - set(found)))
            yield warning("spread", f"{vip} does not spread over all muxes: none of it to {missing}", mend)
        else:
            yield ok("spread", f"{vip} spreads over {len(found)} muxes")


def replies(situation: Situation) -> Iterator[Finding]:
    """A host's way to clients does not lead through a mux, which would have to carry what servers send, too."""
    if situation.config is None:
        return
    found, muxes = way(ip_address(FAR)), set(situation.config.muxes)
    if found is None:
        yield fault("replies", "no route to clients: replies cannot leave", "ip route add default via the router")
    elif found.via in muxes:
        seen = f"the way to clients is by {found.via}, a mux: replies pass through it instead of going straight"
        yield fault("replies", seen, "ip route replace default via the router")
    else:
        yield ok("replies", f"leave by {found.via} on {found.interface}, straight to clients")
