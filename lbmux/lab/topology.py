"""What a lab is made of, as data: nodes, links, addresses, routes, settings, programs.  Something else builds it.

Every node is a network namespace, every link a pair of veth ends.  The built-in topology is Ananta's: a client, a
router that spreads flows over two muxes, three hosts; all on one router, each on a subnet of its own.
"""

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface
from typing import Any

from pydantic import ConfigDict

ROUTER_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    # Layer 4 and inner headers as ports say: policy 1 is not per flow on veth, retransmissions reach other muxes.
    "net.ipv4.fib_multipath_hash_policy": "3",
    "net.ipv4.fib_multipath_hash_fields": "55",
}
NODE_SYSCTLS = {
    # A new namespace takes its first settings from the machine.  Where that forwards, as it does with containers, a mux
    # would send a VIP's packets back to the router.
    "net.ipv4.ip_forward": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    "net.ipv6.conf.all.disable_ipv6": "1",
    "net.ipv6.conf.default.disable_ipv6": "1",
}
INTERFACE_NAME_CHARACTERS = 15
PLACEHOLDERS = ("config", "state", "node", "mux_driver", "agent_driver")
"""What may stand in braces in a program's arguments; the lab fills it in."""
STRICT = ConfigDict(extra="forbid", coerce_numbers_to_str=True)
VIP_ON_LOOPBACK = {"net.ipv4.conf.all.arp_ignore": "1", "net.ipv4.conf.all.arp_announce": "2"}
WIRE = {"tx": False, "tso": False, "gso": False}
"""Of a router's port to a mux or a host: frames leave as on a wire, whole and with finished checksums."""


@dataclass(frozen=True)
class Route:
    """``via``: one gateway, or several for ECMP.  ``advmss`` is what TCP here tells its peers."""

    __pydantic_config__ = STRICT

    destination: str
    via: tuple[str, ...]
    advmss: int | None = None


@dataclass(frozen=True)
class Port:
    """One end of a link: an interface of a node."""

    __pydantic_config__ = STRICT

    node: str
    interface: str
    address: str
    offloads: dict[str, bool] = field(default_factory=dict)
    takes_xdp: bool = False
    """Whether the other end may send by XDP_TX: a veth end has to have a program of its own to be woken by that."""

    @property
    def ip(self) -> str:
        return str(IPv4Interface(self.address).ip)


@dataclass(frozen=True)
class Link:
    __pydantic_config__ = STRICT
    a: Port
    b: Port
    mtu: int = 1500


@dataclass(frozen=True)
class Program:
    """A process of a node: arguments of ``python -m``; ``ready``: it says so by sd_notify."""

    __pydantic_config__ = STRICT

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    ready: bool = True


@dataclass(frozen=True)
class Node:
    __pydantic_config__ = STRICT
    name: str
    role: str
    sysctls: dict[str, str] = field(default_factory=dict)
    extra_addresses: tuple[tuple[str, str], ...] = ()  # (interface, address)
    routes: tuple[Route, ...] = ()
    programs: tuple[Program, ...] = ()


@dataclass(frozen=True)
class Topology:
    """A whole lab.  ``config`` is the file of services that muxes and agents share."""

    __pydantic_config__ = STRICT

    name: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    config: dict[str, Any]

    def port(self, node: str) -> Port:
        """A node's first port."""
        return next(port for link in self.links for port in (link.a, link.b) if port.node == node)

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)


VIP, WEB_PORT, ECHO_PORT, SERVER_PORT = "192.0.2.1", 80, 7, 8080
SERVER_ECHO_PORT = 8007
TUNNEL_ADVMSS = 1440


def _subnet(node: str, network: str, offloads: dict[str, bool]) -> Link:
    return Link(Port("router", f"to-{node}", f"{network}.1/24", offloads, True), Port(node, "eth0", f"{network}.2/24"))


def _server(name: str, address: str, web_port: int, echo_port: int) -> Program:
    arguments = ("--name", name, "--address", address, "--web-port", str(web_port), "--echo-port", str(echo_port))
    return Program("server", "lbmux.lab.server", arguments)


def _agent(mode: str) -> Program:
    arguments = ("agent", "-c", "{config}", "-i", "eth0", "--mode", mode, "--driver", "{agent_driver}", "--control")
    return Program("agent", "lbmux.cli.main", (*arguments, "{state}/{node}.sock"))


def _backends(port: int, local_port: int, weights: dict[str, int]) -> list[dict[str, Any]]:
    dips = {"h1": "10.1.1.2", "h2": "10.1.2.2", "h3": "10.1.3.2"}
    return [
        {"name": name, "dip": dips[name], "port": local_port if name == "h3" else port, "weight": weight}
        for name, weight in weights.items()
    ]


def ananta() -> Topology:
    """Client, router, two muxes, three hosts: two whose agents translate (nat), one that has the VIP itself (local)."""
    muxes = tuple(
        Node(
            f"mux{n}", "mux", routes=(Route("default", (f"10.0.{n}.1",)),),
            programs=(
                Program(
                    "mux", "lbmux.cli.main",
                    ("mux", "-c", "{config}", "-i", "eth0", "--driver", "{mux_driver}", "--xdp-mode", "native",
                     "--control", "{state}/{node}.sock"),
                ),
            ),
        )
        for n in (1, 2)
    )  # fmt: skip
    hosts = tuple(
        Node(
            f"host{n}", "host",
            sysctls=VIP_ON_LOOPBACK if n == 3 else {},
            extra_addresses=(("lo", f"{VIP}/32"),) if n == 3 else (),
            routes=(Route("default", (f"10.1.{n}.1",), TUNNEL_ADVMSS),),
            programs=(
                _server(f"h{n}", VIP, WEB_PORT, ECHO_PORT) if n == 3
                else _server(f"h{n}", f"10.1.{n}.2", SERVER_PORT, SERVER_ECHO_PORT),
                _agent("local" if n == 3 else "nat"),
            ),
        )
        for n in (1, 2, 3)
    )  # fmt: skip
    client = Node("client", "client", routes=(Route("default", ("198.51.100.1",)),))
    router = Node("router", "router", ROUTER_SYSCTLS, routes=(Route(f"{VIP}/32", ("10.0.1.2", "10.0.2.2")),))
    links = [Link(Port("router", "to-client", "198.51.100.1/24"), Port("client", "eth0", "198.51.100.2/24"))]
    links += [_subnet(f"mux{n}", f"10.0.{n}", WIRE) for n in (1, 2)]
    links += [_subnet(f"host{n}", f"10.1.{n}", WIRE) for n in (1, 2, 3)]
    weights = {"h1": 1, "h2": 2, "h3": 1}
    config = {
        "muxes": ["10.0.1.2", "10.0.2.2"],
        "services": [
            {"name": "web", "vip": VIP, "protocol": "tcp", "port": WEB_PORT,
             "backends": _backends(SERVER_PORT, WEB_PORT, weights)},
            {"name": "echo", "vip": VIP, "protocol": "tcp", "port": ECHO_PORT,
             "backends": _backends(SERVER_ECHO_PORT, ECHO_PORT, {"h1": 1, "h2": 1})},
        ],
    }  # fmt: skip
    return Topology("ananta", (client, router, *muxes, *hosts), tuple(links), config)


def ananta_bgp(*options: str) -> Topology:
    """Ananta's, but the router runs BIRD and learns the way to the VIPs from the muxes; ``options``: more of theirs."""
    plain = ananta()
    peers = ("--local", "10.0.1.1", "--peer", "10.0.1.2", "--local", "10.0.2.1", "--peer", "10.0.2.2")
    bird = Program("bird", "lbmux.lab.router", ("{state}/router", *peers), ready=False)

    def with_bgp(node: Node) -> Node:
        if node.role == "router":
            return replace(node, routes=(), programs=(bird,))
        if node.role != "mux":
            return node
        router = str(IPv4Interface(plain.port(node.name).address).network[1])
        arguments = (*node.programs[0].arguments, "--bgp-peer", router, *options)
        return replace(node, programs=(replace(node.programs[0], arguments=arguments),))

    return replace(plain, name="ananta-bgp", nodes=tuple(with_bgp(node) for node in plain.nodes))


TOPOLOGIES = {"ananta": ananta, "ananta-bgp": ananta_bgp}
DEFAULT = "ananta"
