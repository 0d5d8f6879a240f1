"""Moves a topology's services to IPv6: each address gets one of IPv6 beside it, and the services have those.

10.A.B.C becomes 2001:db8:A:B::C, a client's 198.51.100.C becomes 2001:db8:100::C, and the VIP its IPv6 one. BGP
sessions stay on IPv4 and carry both families.
"""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from lbmux.lab.topology import (
    IPV6_SYSCTLS,
    ROUTER_SYSCTLS_IPV6,
    TUNNEL_ADVMSS_IPV6,
    VIP,
    VIP6,
    Link,
    Node,
    Port,
    Program,
    Route,
    Topology,
)

CLIENTS = IPv4Network("198.51.100.0/24")


def in_ipv6(topology: Topology, name: str) -> Topology:
    """Return the topology with its services on IPv6 only."""
    return replace(
        topology, name=name, nodes=tuple(map(_node, topology.nodes)), links=tuple(map(_link, topology.links)),
        config=_config(topology.config),
    )  # fmt: skip


def address6(address: str) -> str:
    """Return the IPv6 address beside an IPv4 one."""
    if address == VIP:
        return VIP6
    _, a, b, c = IPv4Address(address).packed
    return f"2001:db8:100::{c:x}" if IPv4Address(address) in CLIENTS else f"2001:db8:{a}:{b}::{c:x}"


def _interface6(interface: str) -> str:
    """Return an address with its prefix: a host's alone stays alone, others are in a /64."""
    at = IPv4Interface(interface)
    return f"{address6(str(at.ip))}/{128 if at.network.prefixlen == 32 else 64}"


def _link(link: Link) -> Link:
    return replace(link, a=_port(link.a), b=_port(link.b))


def _port(port: Port) -> Port:
    return replace(port, more_addresses=(*port.more_addresses, _interface6(port.address)))


def _node(node: Node) -> Node:
    forwarding = ROUTER_SYSCTLS_IPV6 if node.role == "router" else {}
    return replace(
        node, sysctls=node.sysctls | IPV6_SYSCTLS | forwarding,
        extra_addresses=(*node.extra_addresses, *((at, _interface6(one)) for at, one in node.extra_addresses)),
        routes=(*node.routes, *map(_route, node.routes)), programs=tuple(map(_program, node.programs)),
    )  # fmt: skip


def _route(route: Route) -> Route:
    """Return the route beside one of IPv4: 10.A.0.0/16 is 2001:db8:A::/48."""
    destination = "::/0"
    if route.destination != "default":
        network = IPv4Network(route.destination)
        destination = f"2001:db8:{network.network_address.packed[1]}::/48"
    via = tuple(map(address6, route.via))
    return Route(destination, via, None if route.advmss is None else TUNNEL_ADVMSS_IPV6)


def _program(program: Program) -> Program:
    """Let a server listen on the other addresses, too."""
    if program.name != "server":
        return program
    words = program.arguments
    more = [text for at, word in enumerate(words) if word == "--address" for text in (word, address6(words[at + 1]))]
    return replace(program, arguments=(*words, *more))


def _config(config: dict[str, Any]) -> dict[str, Any]:
    services = [
        one | {
            "vip": address6(one["vip"]),
            "backends": [backend | {"dip": address6(backend["dip"])} for backend in one["backends"]],
        }
        for one in config["services"]
    ]  # fmt: skip
    return config | {"muxes": [*config["muxes"], *map(address6, config["muxes"])], "services": services}
