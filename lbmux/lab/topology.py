"""A lab's topology as data: nodes, links, addresses, routes, sysctls, programs.  lbmux.lab.topology_builder builds it.

Every node is a network namespace, every link a veth pair.  The topology here is Ananta's: a client, a router that
spreads flows over two muxes, and three hosts, each on its own subnet behind the router.
"""

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface
from typing import Any

from pydantic import ConfigDict

ROUTER_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    # Policy 3 hashes the fields below.  Policy 1 is not per flow on veth: retransmissions reach other muxes.
    "net.ipv4.fib_multipath_hash_policy": "3",
    "net.ipv4.fib_multipath_hash_fields": "55",
}
NODE_SYSCTLS = {
    # A new namespace inherits the machine's settings.  If that forwards, as with containers, a mux would send VIP
    # packets back to the router.
    "net.ipv4.ip_forward": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    "net.ipv6.conf.all.disable_ipv6": "1",
    "net.ipv6.conf.default.disable_ipv6": "1",
}
ROUTER_SYSCTLS_IPV6 = {
    "net.ipv6.conf.all.forwarding": "1",
    "net.ipv6.fib_multipath_hash_policy": "3",
    "net.ipv6.fib_multipath_hash_fields": "55",
}
IPV6_SYSCTLS = {
    "net.ipv6.conf.all.disable_ipv6": "0",
    "net.ipv6.conf.default.disable_ipv6": "0",
    # Addresses are usable at once (no duplicate address detection), and no router solicitations are sent.
    "net.ipv6.conf.all.accept_dad": "0",
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.default.accept_ra": "0",
    "net.ipv6.conf.default.router_solicitations": "0",
}
INTERFACE_NAME_CHARACTERS = 15
PLACEHOLDERS = ("config", "state", "node", "mux_driver", "agent_driver")
"""Placeholders in braces in a program's arguments, which the lab fills in."""
STRICT = ConfigDict(extra="forbid", coerce_numbers_to_str=True)
VIP_ON_LOOPBACK = {"net.ipv4.conf.all.arp_ignore": "1", "net.ipv4.conf.all.arp_announce": "2"}
WIRE = {"tx": False, "tso": False, "gso": False}
"""Offloads of a router's port to a mux or host: frames leave as on a wire, segmented and with finished checksums."""


@dataclass(frozen=True)
class Route:
    """``via``: one gateway, or several for ECMP.  ``advmss``: the MSS that TCP advertises on this route."""

    __pydantic_config__ = STRICT

    destination: str
    via: tuple[str, ...]
    advmss: int | None = None


@dataclass(frozen=True)
class Port:
    """One end of a link: an interface of a node.  A switch's port has no address."""

    __pydantic_config__ = STRICT

    node: str
    interface: str
    address: str = ""
    offloads: dict[str, bool] = field(default_factory=dict)
    more_addresses: tuple[str, ...] = ()
    takes_xdp: bool = False
    """Whether the other end may send with XDP_TX, which a veth delivers only to an end with an XDP program."""

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.address, *self.more_addresses) if self.address else ()

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
    """A process of a node: arguments of ``python -m``.  ``ready``: it reports readiness by sd_notify."""

    __pydantic_config__ = STRICT

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    ready: bool = True


@dataclass(frozen=True)
class Node:
    """A network namespace with its addresses beyond those of links, its routes and its programs."""

    __pydantic_config__ = STRICT
    name: str
    role: str
    sysctls: dict[str, str] = field(default_factory=dict)
    extra_addresses: tuple[tuple[str, str], ...] = ()  # (interface, address)
    routes: tuple[Route, ...] = ()
    programs: tuple[Program, ...] = ()
    switches: bool = False
    """Whether the node is an Ethernet switch with its interfaces as ports."""


@dataclass(frozen=True)
class Topology:
    """A whole topology.  ``config``: the configuration that muxes and agents share.

    ``files``: text by name of further files in the lab's directory, such as the configuration of a site.
    """

    __pydantic_config__ = STRICT

    name: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    config: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)

    def port(self, node: str) -> Port:
        """Return a node's first port."""
        return self.ports(node)[0]

    def ports(self, node: str) -> list[Port]:
        return [port for link in self.links for port in (link.a, link.b) if port.node == node]

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)


VIP, VIP6, WEB_PORT, ECHO_PORT, SERVER_PORT = "192.0.2.1", "2001:db8:192::1", 80, 7, 8080
SERVER_ECHO_PORT = 8007
TUNNEL_ADVMSS, TUNNEL_ADVMSS_IPV6 = 1440, 1400
"""The TCP payload that fits in 1500 bytes with IP-in-IP headers, for IPv4 and for IPv6."""


def subnet(node: str, network: str, network6: str, router: str = "router") -> Link:
    """Return a router's link to a mux or host with its own subnets, a /24 and a /64."""
    port = Port(router, f"to-{node}", f"{network}.1/24", WIRE, (f"{network6}::1/64",), True)
    return Link(port, Port(node, "eth0", f"{network}.2/24", more_addresses=(f"{network6}::2/64",)))


def _server(name: str, addresses: tuple[str, str], web_port: int, echo_port: int) -> Program:
    where = ("--address", addresses[0], "--address", addresses[1])
    arguments = ("--name", name, *where, "--web-port", str(web_port), "--echo-port", str(echo_port))
    return Program("server", "lbmux.lab.test_server", arguments)


def _agent(mode: str) -> Program:
    arguments = ("agent", "-c", "{config}", "-i", "eth0", "--mode", mode, "--driver", "{agent_driver}", "--control")
    return Program("agent", "lbmux.cli.main", (*arguments, "{state}/{node}.sock"))


def _backends(port: int, local_port: int, weights: dict[str, int]) -> list[dict[str, Any]]:
    dips = {"h1": "10.1.1.2", "h2": "10.1.2.2", "h3": "10.1.3.2"}
    return [
        {"name": name, "dip": dips[name], "port": local_port if name == "h3" else port, "weight": weight}
        for name, weight in weights.items()
    ]


def default_routes(gateway: str, gateway6: str, is_host: bool = False) -> tuple[Route, Route]:
    mss, mss6 = (TUNNEL_ADVMSS, TUNNEL_ADVMSS_IPV6) if is_host else (None, None)
    return Route("default", (gateway,), mss), Route("::/0", (gateway6,), mss6)


def ananta(mux_count: int = 2) -> Topology:
    """Client, router, two muxes and three hosts: two with agents in mode nat, one in mode local with the VIPs."""
    numbers = range(1, mux_count + 1)
    client = Node("client", "client", IPV6_SYSCTLS, routes=default_routes("198.51.100.1", "2001:db8:100::1"))
    to_vips = (
        Route(f"{VIP}/32", tuple(f"10.0.{n}.2" for n in numbers)),
        Route(f"{VIP6}/128", tuple(f"2001:db8:0:{n}::2" for n in numbers)),
    )
    router = Node("router", "router", ROUTER_SYSCTLS | IPV6_SYSCTLS | ROUTER_SYSCTLS_IPV6, routes=to_vips)
    links = [
        Link(
            Port("router", "to-client", "198.51.100.1/24", more_addresses=("2001:db8:100::1/64",)),
            Port("client", "eth0", "198.51.100.2/24", more_addresses=("2001:db8:100::2/64",)),
        )
    ]
    links += [subnet(f"mux{n}", f"10.0.{n}", f"2001:db8:0:{n}") for n in numbers]
    links += [subnet(f"host{n}", f"10.1.{n}", f"2001:db8:1:{n}") for n in (1, 2, 3)]
    config = {"muxes": [address for route in to_vips for address in route.via], "services": _services()}
    nodes = (client, router, *map(_mux, numbers), *map(_host, (1, 2, 3)))
    return Topology("ananta", nodes, tuple(links), config)


def _mux(n: int) -> Node:
    program = Program(
        "mux", "lbmux.cli.main",
        ("mux", "-c", "{config}", "-i", "eth0", "--driver", "{mux_driver}", "--xdp-mode", "native",
         "--control", "{state}/{node}.sock"),
    )  # fmt: skip
    routes = default_routes(f"10.0.{n}.1", f"2001:db8:0:{n}::1")
    return Node(f"mux{n}", "mux", IPV6_SYSCTLS, routes=routes, programs=(program,))


def _host(n: int) -> Node:
    """Return a host.  The third has the VIPs on its loopback interface."""
    routes = default_routes(f"10.1.{n}.1", f"2001:db8:1:{n}::1", is_host=True)
    if n == 3:
        vips = (("lo", f"{VIP}/32"), ("lo", f"{VIP6}/128"))
        programs = (_server(f"h{n}", (VIP, VIP6), WEB_PORT, ECHO_PORT), _agent("local"))
        return Node(f"host{n}", "host", IPV6_SYSCTLS | VIP_ON_LOOPBACK, vips, routes, programs)
    server = _server(f"h{n}", (f"10.1.{n}.2", f"2001:db8:1:{n}::2"), SERVER_PORT, SERVER_ECHO_PORT)
    return Node(f"host{n}", "host", IPV6_SYSCTLS, routes=routes, programs=(server, _agent("nat")))


def _services() -> list[dict[str, Any]]:
    return [
        {"name": "web", "vip": VIP, "protocol": "tcp", "port": WEB_PORT,
         "backends": _backends(SERVER_PORT, WEB_PORT, {"h1": 1, "h2": 2, "h3": 1})},
        {"name": "echo", "vip": VIP, "protocol": "tcp", "port": ECHO_PORT,
         "backends": _backends(SERVER_ECHO_PORT, ECHO_PORT, {"h1": 1, "h2": 1})},
        {"name": "web6", "vip": VIP6, "protocol": "tcp", "port": WEB_PORT, "backends": [
            {"name": "h1", "dip": "2001:db8:1:1::2", "port": SERVER_PORT, "weight": 1},
            # IPv6 in IPv4
            {"name": "h2", "dip": "2001:db8:1:2::2", "port": SERVER_PORT, "weight": 2, "host": "10.1.2.2"},
            {"name": "h3", "dip": "2001:db8:1:3::2", "port": WEB_PORT, "weight": 1},
        ]},
    ]  # fmt: skip


ROUTERS = {"bird": "lbmux.lab.bird_router", "frr": "lbmux.lab.frr_router"}


def ananta_bgp(*options: str, router: str = "bird", mux_count: int = 2) -> Topology:
    """Ananta, with a router that learns the routes to the VIPs from the muxes by BGP.

    ``options``: more command-line options of the muxes.  ``router``: bird or frr.
    """
    plain = ananta(mux_count)
    peers = [text for n in range(1, mux_count + 1) for text in ("--local", f"10.0.{n}.1", "--peer", f"10.0.{n}.2")]
    routing = Program(router, ROUTERS[router], ("{state}/router", *peers))

    def with_bgp(node: Node) -> Node:
        if node.role == "router":
            return replace(node, routes=(), programs=(routing,))
        if node.role != "mux":
            return node
        gateway = str(IPv4Interface(plain.port(node.name).address).network[1])
        arguments = (*node.programs[0].arguments, "--bgp-peer", gateway, *options)
        return replace(node, programs=(replace(node.programs[0], arguments=arguments),))

    name = "ananta-bgp" if router == "bird" else f"ananta-{router}"
    return replace(plain, name=name, nodes=tuple(with_bgp(node) for node in plain.nodes))


def ananta_frr(*options: str) -> Topology:
    return ananta_bgp(*options, router="frr")
