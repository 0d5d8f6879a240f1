"""Seesaw's design: two muxes, of which VRRP makes one active, instead of BGP and ECMP.

Router and muxes share one Ethernet segment.  The router sends VIP packets to an address that the active mux has.  The
other mux takes the address over when the active one fails; mux1 takes it back after recovery.  Hosts and client are
Ananta's.
"""

from dataclasses import replace

from lbmux.lab.systems import common_nodes
from lbmux.lab.topology import VIP, WIRE, Link, Node, Port, Program, Route, Topology, ananta

ROUTER, ACTIVE = "10.0.0.1", "10.0.0.10"
"""Addresses on the segment: the router's, and that of the active mux."""
MUXES = {"mux1": ("10.0.0.2", 101), "mux2": ("10.0.0.3", 100)}
"""The muxes' addresses and VRRP priorities."""


def _mux(name: str, plain: Topology) -> Node:
    arguments = (
        "{state}/{node}-vrrp", "--interface", "eth0", "--address", f"{ACTIVE}/24", "--priority", str(MUXES[name][1]),
        "--control", "{state}/{node}.sock",
    )  # fmt: skip
    vrrp = Program("vrrp", "lbmux.lab.keepalived", arguments)
    programs = (*plain.node(name).programs, vrrp)
    return replace(plain.node(name), routes=(Route("default", (ROUTER,)),), programs=programs)


def seesaw() -> Topology:
    plain = ananta()
    switch = Node("switch", "switch", switches=True)
    router = replace(plain.node("router"), routes=(Route(f"{VIP}/32", (ACTIVE,)),))
    others = [node for node in plain.nodes if node.role not in ("router", "mux")]
    links = [link for link in plain.links if link.b.node not in MUXES]
    links.append(Link(Port("switch", "to-router"), Port("router", "to-muxes", f"{ROUTER}/24", WIRE)))
    for name, (address, _) in MUXES.items():
        links.append(Link(Port("switch", f"to-{name}", takes_xdp=True), Port(name, "eth0", f"{address}/24")))
    services = [one | {"health": common_nodes.HEALTH} for one in plain.config["services"] if one["vip"] == VIP]
    config = {"muxes": [address for address, _ in MUXES.values()], "services": services}
    return Topology("seesaw", (*others, router, switch, *(_mux(name, plain) for name in MUXES)), tuple(links), config)
