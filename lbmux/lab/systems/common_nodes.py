"""Nodes that the systems share: a client, routers with BIRD, hosts with the lab's server.  IPv4 only."""

from typing import Any

from lbmux.lab.topology import ECHO_PORT, ROUTER_SYSCTLS, VIP, WEB_PORT, WIRE, Link, Node, Port, Program, Route

CLIENT, CLIENT_GATEWAY = "198.51.100.2", "198.51.100.1"
SPEAKER = ("--bgp-speaker", "bird", "--bfd", "--drain", "1")
"""BGP options of muxes and edges: BIRD with BFD, which detects a frozen node within 0.15 s."""
HEALTH = {"kind": "tcp", "interval_s": 0.2, "timeout_s": 0.2, "rise": 1, "fall": 2}


def client() -> Node:
    return Node("client", "client", routes=(Route("default", (CLIENT_GATEWAY,)),))


def client_link() -> Link:
    return Link(
        Port("router", "to-client", f"{CLIENT_GATEWAY}/24"), Port("client", "eth0", f"{CLIENT}/24")
    )  # fmt: skip


def link(router: str, node: str, network: str) -> Link:
    """Return a router's link to a node with its own /24 subnet.  ``network``: the subnet's first three octets."""
    port = Port(router, f"to-{node}", f"{network}.1/24", WIRE, takes_xdp=True)
    return Link(port, Port(node, "eth0", f"{network}.2/24"))


def router(name: str, peers: dict[str, str], *options: str, routes: tuple[Route, ...] = ()) -> Node:
    """Return a router with BIRD, which learns the routes to the VIPs.  ``peers``: peer addresses by own address."""
    pairs = [text for own, peer in peers.items() for text in ("--local", own, "--peer", peer)]
    bird = Program("bird", "lbmux.lab.bird_router", (f"{{state}}/{name}", *pairs, *options))
    return Node(name, "router", ROUTER_SYSCTLS, routes=routes, programs=(bird,))


def server(name: str, *addresses: str, web_port: int = WEB_PORT, echo_port: int = ECHO_PORT) -> Program:
    where = [text for address in addresses for text in ("--address", address)]
    ports = ("--web-port", str(web_port), "--echo-port", str(echo_port))
    return Program("server", "lbmux.lab.test_server", ("--name", name, *where, *ports))


def services(dips: dict[str, str], health: dict[str, Any] | None = HEALTH) -> list[dict[str, Any]]:
    """Return the VIP's web and echo services, each with all of these backends (name: address), on the VIP's ports."""
    backends = [{"name": name, "dip": dip} for name, dip in dips.items()]
    common = {"vip": VIP, "protocol": "tcp", "backends": backends} | ({"health": health} if health else {})
    return [{"name": "web", "port": WEB_PORT} | common, {"name": "echo", "port": ECHO_PORT} | common]
