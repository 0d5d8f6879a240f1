"""Two namespaces, a and b, joined by a veth: for tests of what needs a wire."""

import os
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from pyroute2 import IPRoute

from lbmux.lab import namespaces, topology_builder
from lbmux.lab.topology import Link, Node, Port, Topology

Result = TypeVar("Result")
NODES = ("a", "b")


class Pair:
    """Interfaces a0 (10.9.0.1) and b0 (10.9.0.2)."""

    def __init__(self) -> None:
        self._name = f"pair{os.getpid()}-"
        link = Link(Port("a", "a0", "10.9.0.1/24"), Port("b", "b0", "10.9.0.2/24"))
        nodes = tuple(Node(name, "host") for name in NODES)
        topology_builder.build(Topology("pair", nodes, (link,), {}), self.namespace)

    def namespace(self, node: str) -> str:
        return self._name + node

    def remove(self) -> None:
        for node in NODES:
            namespaces.remove(self.namespace(node))

    def inside(self, node: str, work: Callable[[], Result]) -> Result:
        return namespaces.inside(self.namespace(node), work)

    def netlink(self, node: str, work: Callable[[Any, int], Result]) -> Result:
        """Call ``change`` with pyroute2 in a node and the index of the node's interface."""

        def inside() -> Result:
            with IPRoute() as ip:
                return work(ip, ip.link_lookup(ifname=f"{node}0")[0])

        return self.inside(node, inside)

    def set_link(self, node: str, **changes: Any) -> None:
        self.netlink(node, lambda ip, index: ip.link("set", index=index, **changes))

    def wire(self, node: str) -> socket.socket:
        """A packet socket on the node's interface: whole frames out and in."""

        def opened() -> socket.socket:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            sock.bind((f"{node}0", 3))
            sock.settimeout(2)
            return sock

        return self.inside(node, opened)
