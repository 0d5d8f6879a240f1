"""Check routes: the router's routes to the VIPs, and the hosts' routes for replies."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lbmux.addresses import FAMILIES, Address
from lbmux.linux.interface_addresses import addresses
from lbmux.linux.policy_routes import END_PRIORITY, earlier_rules
from lbmux.plurals import counted
from lbmux.tools.doctor.finding import Finding, fault, ok, warning
from lbmux.tools.doctor.node_state import NodeState

FAR: dict[int, Address] = {4: ip_address("203.0.113.1"), 6: ip_address("3fff::1")}
"""Documentation addresses (RFC 5737, RFC 9637).  The route to them is the route to clients in general."""


@dataclass(frozen=True)
class Route:
    """A route's interface and next hop.  ``mac`` is the interface's MAC address, None if it has none."""

    interface: str
    via: Address
    mac: str | None


def route_to(destination: Address, source: Address | None = None) -> Route | None:
    """Ask the kernel for the route to an address; None if there is none."""
    arguments = {"dst": str(destination)} | ({"src": str(source)} if source else {})
    with IPRoute() as ip:
        try:
            route = ip.route("get", **arguments)[0]
        except NetlinkError:
            return None
        link = ip.get_links(route.get_attr("RTA_OIF"))[0]
    gateway = route.get_attr("RTA_GATEWAY")
    via = ip_address(gateway) if gateway else destination
    return Route(link.get_attr("IFLA_IFNAME"), via, link.get_attr("IFLA_ADDRESS"))


def gateways(destination: Address) -> list[str] | None:
    """Return the gateways of the longest matching route in the main table; None if there is none."""
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


def spreading(node: NodeState) -> Iterator[Finding]:
    """Check that the router's route to each VIP has exactly the configuration's muxes as next hops."""
    if node.config is None:
        return
    for vip in node.vips:
        next_hops = gateways(vip)
        muxes = {str(mux) for mux in node.config.muxes if mux.version == vip.version}
        hint = f"ip route replace {vip} {' '.join(f'nexthop via {mux}' for mux in sorted(muxes))}"
        if next_hops is None:
            yield fault("spread", f"no route to the VIP {vip}", hint)
        elif not set(next_hops) <= muxes:
            strangers = ", ".join(sorted(str(gateway) for gateway in set(next_hops) - muxes))
            yield fault("spread", f"{vip} goes to {strangers}, which is not a mux", hint)
        elif set(next_hops) < muxes:
            missing = ", ".join(sorted(muxes - set(next_hops)))
            yield warning("spread", f"{vip} does not spread over all muxes: {missing} gets nothing", hint)
        else:
            yield ok("spread", f"{vip} spreads over {counted(len(next_hops), 'mux', 'muxes')}")


def replies(node: NodeState) -> Iterator[Finding]:
    """Check that replies bypass the muxes, and leave by an interface on which the agent translates them."""
    if node.config is None:
        return
    dips: list[Address | None] = [*_own_dips(node)]
    for dip in dips or [None]:
        yield _reply_route(node, set(node.config.muxes), dip)


def _own_dips(node: NodeState) -> list[Address]:
    """One DIP of this host for each IP version, since routes may depend on the source address."""
    assert node.config is not None
    own = set(map(ip_address, node.runtime.addresses if node.runtime else ())) or set(addresses())
    backends = [backend for service in node.config.services for backend in service.backends]
    return list({backend.dip.version: backend.dip for backend in backends if backend.tunnel_to in own}.values())


def _reply_route(node: NodeState, muxes: set[Address], dip: Address | None) -> Finding:
    far = FAR[dip.version if dip is not None else 4]
    runtime = node.runtime if node.role == "agent" else None
    in_kernel = runtime is not None and runtime.driver == "xdp"
    # In user space, replies are routed by the main table, and the DIP may belong to another namespace.
    route = (route_to(far, dip) if in_kernel else None) or route_to(far)
    if route is None:
        reason = f"no IPv{far.version} route to clients: replies cannot leave"
        return fault("replies", reason, "ip route add default via ROUTER")
    if route.via in muxes:
        seen = f"the route to clients goes through {route.via}, a mux: replies do not bypass it"
        return fault("replies", seen, "ip route replace default via ROUTER")
    in_user_space = runtime is not None and runtime.mode == "nat" and not in_kernel
    taken = earlier_rules(dip) if in_user_space and dip is not None else []
    if taken:
        seen = f"the rule {taken[0]} comes before the agent's: replies leave untranslated, with the DIP as their source"
        return fault("replies", seen, f"add that rule with a priority above {END_PRIORITY}")
    straight = f"leave by {route.via} on {route.interface}, bypassing the muxes"
    if runtime is None or not in_kernel or runtime.mode != "nat":
        return ok("replies", straight)
    egress, missing = runtime.egress or [], runtime.egress_missing or {}
    if route.interface not in egress:
        reason = missing.get(route.interface, "the agent's egress program is not attached there")
        seen = f"{straight}, but untranslated, with the DIP as their source: {reason}"
        return fault("replies", seen, "restart the agent, or run it with --driver tun")
    return ok("replies", f"{straight}; translated at {', '.join(egress)}")
