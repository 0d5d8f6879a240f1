"""Builds a topology in network namespaces: nodes, links between them, addresses, switches and routes."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from pyroute2 import IPRoute

from lbmux.lab.namespaces import add_address, create, inside, set_route, set_sysctls
from lbmux.lab.topology import NODE_SYSCTLS, Link, Node, Port, Topology
from lbmux.linux.offloads import set_features
from lbmux.targets.bpf.syscall import Attach, BpfError, load_program

PASS = bytes.fromhex("b700000002000000 9500000000000000")
"""An XDP program that passes all frames: r0 = XDP_PASS; exit."""


def build(topology: Topology, name_of: Callable[[str], str]) -> None:
    """Build the topology without its programs.  ``name_of`` maps a node to its namespace."""
    for node in topology.nodes:
        create(name_of(node.name))
        inside(name_of(node.name), lambda node=node: _set_up(node))  # type: ignore[misc]
    for link in topology.links:
        inside(name_of(link.a.node), lambda link=link: _add_link(link, name_of(link.b.node)))  # type: ignore[misc]
        for port in (link.a, link.b):
            inside(name_of(port.node), lambda port=port, link=link: configure(port, link.mtu))  # type: ignore[misc]
    for node in (node for node in topology.nodes if node.switches):
        inside(name_of(node.name), partial(_switch, topology.ports(node.name)))
    for node in topology.nodes:
        inside(name_of(node.name), lambda node=node: _address_and_route(node))  # type: ignore[misc]


def _set_up(node: Node) -> None:
    set_sysctls(NODE_SYSCTLS | node.sysctls)
    with IPRoute() as ip:
        ip.link("set", index=ip.link_lookup(ifname="lo")[0], state="up")


def _add_link(link: Link, peer_namespace: str) -> None:
    """Add a veth pair: one end in the current namespace, the other in ``peer_namespace``."""
    with IPRoute() as ip:
        peer = {"ifname": link.b.interface, "net_ns_fd": peer_namespace}
        ip.link("add", ifname=link.a.interface, kind="veth", peer=peer)


def configure(port: Port, mtu: int) -> None:
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=port.interface)[0]
        for text in port.addresses:
            address, length = text.split("/")
            ip.addr("add", index=index, address=address, prefixlen=int(length))
        ip.link("set", index=index, state="up", mtu=mtu)
        if port.takes_xdp:
            with suppress(BpfError):  # this kernel has no XDP, so no program sends with XDP_TX either
                program = load_program(Attach.XDP, PASS, "lbmux_pass").descriptor
                ip.link("set", index=index, xdp_fd=program)
                os.close(program)
    set_features(port.interface, port.offloads)


def _switch(ports: Sequence[Port]) -> None:
    """Join interfaces of the current namespace to one Ethernet segment."""
    with IPRoute() as ip:
        ip.link("add", ifname="switch", kind="bridge")
        bridge = ip.link_lookup(ifname="switch")[0]
        ip.link("set", index=bridge, state="up")
        for port in ports:
            ip.link("set", index=ip.link_lookup(ifname=port.interface)[0], master=bridge)


def _address_and_route(node: Node) -> None:
    for interface, text in node.extra_addresses:
        add_address(interface, text)
    for route in node.routes:
        set_route(route)
