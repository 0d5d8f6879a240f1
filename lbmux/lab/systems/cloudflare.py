"""Cloudflare's design: no mux.  Every host has the VIP and announces it while its own server is healthy.

``cloudflare``: one router spreads flows over the hosts by ECMP.  ``anycast``: two PoPs announce the same VIP to the
client's router, which uses the one with the shorter AS path; if that PoP fails, traffic moves to the other.
``balanced``: the same with edges that forward each packet to the edge that has its connection, in either PoP (Unimog).
"""

from dataclasses import replace
from ipaddress import ip_address

from lbmux.lab.systems import common_nodes
from lbmux.lab.topology import TUNNEL_ADVMSS, VIP, Node, Program, Route, Topology

PEERS_OF_POPS = ("--as", "64513", "--peer-as", "64512")
"""The PoPs share one AS, as an operator's would; the router in front of them has another."""
BALANCE = ("--balance", "--driver", "{mux_driver}")


def _edge(number: int, network: str, options: tuple[str, ...]) -> Node:
    gateway, own = f"{network}.1", f"{network}.2"
    arguments = ("-c", "{config}", "-i", "eth0", "--control", "{state}/{node}.sock", "--bgp-peer", gateway)
    edge = Program("edge", "lbmux.cli.main", ("edge", *arguments, *options))
    return Node(
        f"host{number}", "edge",
        extra_addresses=(("lo", f"{VIP}/32"),),
        routes=(Route("default", (gateway,)),),
        programs=(common_nodes.server(f"h{number}", VIP, own), edge),
    )  # fmt: skip


def cloudflare(*options: str, hosts: int = 3) -> Topology:
    """Client, router, edges.  ``options``: the edges' command-line options instead of the defaults."""
    networks = {number: f"10.1.{number}" for number in range(1, hosts + 1)}
    edges = [_edge(number, network, options or common_nodes.SPEAKER) for number, network in networks.items()]
    router = common_nodes.router("router", {f"{network}.1": f"{network}.2" for network in networks.values()})
    links = [common_nodes.link("router", f"host{number}", network) for number, network in networks.items()]
    config = {"services": common_nodes.services({f"h{number}": f"{network}.2" for number, network in networks.items()})}
    return Topology("cloudflare", (common_nodes.client(), router, *edges), (common_nodes.client_link(), *links), config)


def anycast(*options: str, spare: bool = False) -> Topology:
    """Client, router, and two PoPs, each a router and two edges; pop1 is nearer.  ``spare``: a third edge in pop1."""
    nodes, links, dips, uplinks = [], [common_nodes.client_link()], {}, {}
    for pop in (1, 2):
        uplink = f"10.255.{pop}"
        uplinks[f"{uplink}.1"] = f"{uplink}.2"
        links.append(common_nodes.link("router", f"pop{pop}", uplink))
        networks = {2 * pop - 1: f"10.{pop}.1", 2 * pop: f"10.{pop}.2"} | ({5: "10.1.3"} if spare and pop == 1 else {})
        upwards = ("--upstream", f"{uplink}.2", f"{uplink}.1", "--prepend", str(pop - 1))
        to_client = (Route("default", (f"{uplink}.1",)),)
        peers = {f"{network}.1": f"{network}.2" for network in networks.values()}
        nodes.append(common_nodes.router(f"pop{pop}", peers, *upwards, routes=to_client))
        for number, network in networks.items():
            nodes.append(_edge(number, network, options or common_nodes.SPEAKER))
            links.append(common_nodes.link(f"pop{pop}", f"host{number}", network))
            dips[f"h{number}"] = f"{network}.2"
    to_hosts = tuple(Route(f"10.{pop}.0.0/16", (f"10.255.{pop}.2",)) for pop in (1, 2))
    router = common_nodes.router("router", uplinks, *PEERS_OF_POPS, routes=to_hosts)
    config = {"services": common_nodes.services(dips)}
    return Topology("cloudflare-anycast", (common_nodes.client(), router, *nodes), tuple(links), config)


def balanced(*options: str, spare: bool = False) -> Topology:
    """``anycast`` with edges that balance. Each has a second address, which is its mux's."""
    plain = anycast(*(options or common_nodes.SPEAKER), *BALANCE, spare=spare)
    nodes = tuple(_balancing(plain, node) if node.role == "edge" else node for node in plain.nodes)
    muxes = [_mux_address(plain, node) for node in nodes if node.role == "edge"]
    return replace(plain, name="cloudflare-balanced", nodes=nodes, config={"muxes": muxes, **plain.config})


def _mux_address(topology: Topology, node: Node) -> str:
    return str(ip_address(topology.port(node.name).ip) + 1)


def _balancing(topology: Topology, node: Node) -> Node:
    """Return an edge with an address for its mux, and an MSS that leaves room for the outer header."""
    address = ("eth0", f"{_mux_address(topology, node)}/24")
    routes = tuple(replace(route, advmss=TUNNEL_ADVMSS) for route in node.routes)
    return replace(node, extra_addresses=(*node.extra_addresses, address), routes=routes)
