"""Network namespaces: create, enter, configure (links, addresses, routes, sysctls) and remove them."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute, netns

from lbmux.addresses import mac_from_int, mac_to_int
from lbmux.errors import LabError
from lbmux.lab.topology import Link, Node, Port, Route, Topology
from lbmux.linux import network_namespaces
from lbmux.linux.offloads import set_features
from lbmux.targets.bpf.syscall import Attach, BpfError, load_program

PERMANENT = 0x80  # NUD_PERMANENT
PASS = bytes.fromhex("b700000002000000 9500000000000000")
"""An XDP program that passes all frames: r0 = XDP_PASS; exit."""
Result = TypeVar("Result")


def enter(name: str) -> None:
    """Move the calling thread into a namespace permanently."""
    network_namespaces.enter(f"{netns.NETNS_RUN_DIR}/{name}")


def inside(name: str, work: Callable[[], Result]) -> Result:
    """Call ``work`` in a namespace, in a temporary thread, and return its result."""
    return network_namespaces.inside(f"{netns.NETNS_RUN_DIR}/{name}", work)


def exists(name: str) -> bool:
    return Path(f"{netns.NETNS_RUN_DIR}/{name}").exists()


def remove(name: str) -> None:
    if exists(name):
        netns.remove(name)


def build(topology: Topology, name_of: Callable[[str], str]) -> None:
    """Build the topology without its programs.  ``name_of`` maps a node to its namespace."""
    for node in topology.nodes:
        netns.create(name_of(node.name))
        inside(name_of(node.name), lambda node=node: _set_up(node))  # type: ignore[misc]
    for link in topology.links:
        inside(name_of(link.a.node), lambda link=link: _connect(link, name_of(link.b.node)))  # type: ignore[misc]
        for port in (link.a, link.b):
            inside(name_of(port.node), lambda port=port, link=link: configure(port, link.mtu))  # type: ignore[misc]
    for node in (node for node in topology.nodes if node.switches):
        inside(name_of(node.name), partial(_switch, topology.ports(node.name)))
    for node in topology.nodes:
        inside(name_of(node.name), lambda node=node: _address_and_route(node))  # type: ignore[misc]


def set_sysctls(values: dict[str, str]) -> None:
    for name, value in values.items():
        try:
            Path("/proc/sys", *name.split(".")).write_text(value)
        except OSError as error:
            raise LabError("", f"sysctl {name}={value}: {error.strerror}") from error


def _set_up(node: Node) -> None:
    from lbmux.lab.topology import NODE_SYSCTLS

    set_sysctls(NODE_SYSCTLS | node.sysctls)
    with IPRoute() as ip:
        ip.link("set", index=ip.link_lookup(ifname="lo")[0], state="up")


def _connect(link: Link, peer_namespace: str) -> None:
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
    with IPRoute() as ip:
        for interface, text in node.extra_addresses:
            address, length = text.split("/")
            ip.addr("add", index=ip.link_lookup(ifname=interface)[0], address=address, prefixlen=int(length))
    for route in node.routes:
        set_route(route)


def set_route(route: Route) -> None:
    """Add a route of the current namespace, or replace it."""
    arguments: dict[str, Any] = {"dst": route.destination}
    if len(route.via) == 1:
        arguments["gateway"] = route.via[0]
    else:
        arguments["multipath"] = [{"gateway": gateway} for gateway in route.via]
    if route.advmss:
        arguments["metrics"] = {"advmss": route.advmss}
    with IPRoute() as ip:
        ip.route("replace", **arguments)


def remove_address(interface: str, text: str) -> None:
    address, length = text.split("/")
    with IPRoute() as ip:
        ip.addr("del", index=ip.link_lookup(ifname=interface)[0], address=address, prefixlen=int(length))


def add_address(interface: str, text: str) -> None:
    address, length = text.split("/")
    with IPRoute() as ip:
        ip.addr("add", index=ip.link_lookup(ifname=interface)[0], address=address, prefixlen=int(length))


def packet_counters(interface: str) -> tuple[int, int]:
    """(received, sent) packets of an interface of the current namespace."""
    with IPRoute() as ip:
        stats = ip.get_links(ip.link_lookup(ifname=interface)[0])[0].get_attr("IFLA_STATS64")
    return stats["rx_packets"], stats["tx_packets"]


def byte_counters(interface: str) -> tuple[int, int]:
    """(received, sent) bytes of an interface of the current namespace."""
    with IPRoute() as ip:
        stats = ip.get_links(ip.link_lookup(ifname=interface)[0])[0].get_attr("IFLA_STATS64")
    return stats["rx_bytes"], stats["tx_bytes"]


def link_mac(interface: str) -> int:
    """The MAC address of an interface of the current namespace, as a 48-bit integer in load order."""
    with IPRoute() as ip:
        return mac_to_int(ip.get_links(ip.link_lookup(ifname=interface)[0])[0].get_attr("IFLA_ADDRESS"))


def set_neighbour(interface: str, address: str, mac: int) -> None:
    """Add a permanent neighbour entry in the current namespace."""
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=interface)[0]
        ip.neigh("replace", dst=address, lladdr=mac_from_int(mac), ifindex=index, state=PERMANENT)
