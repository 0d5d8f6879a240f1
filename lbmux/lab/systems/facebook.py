"""Facebook's design: muxes as in Ananta, with layer-7 proxies (HAProxy) as hosts that terminate connections.

The proxies have the VIP and answer the client directly.  They forward requests over their own connections to
application servers, which muxes and clients do not see.  The answer to a client names an application server.
"""

from dataclasses import replace

from lbmux.lab.systems import common_nodes
from lbmux.lab.topology import (
    ECHO_PORT,
    SERVER_ECHO_PORT,
    SERVER_PORT,
    WEB_PORT,
    Node,
    Program,
    Route,
    Topology,
    ananta_bgp,
)

APPLICATIONS = {"app1": "10.2.1", "app2": "10.2.2"}
"""The application servers' networks."""


def _proxy() -> Program:
    ports = ("--web-port", str(WEB_PORT), "--echo-port", str(ECHO_PORT))
    servers = [
        text for name, network in APPLICATIONS.items()
        for text in ("--server", name, f"{network}.2", str(SERVER_PORT), str(SERVER_ECHO_PORT))
    ]  # fmt: skip
    return Program("haproxy", "lbmux.lab.haproxy", ("{state}/{node}-haproxy.cfg", *ports, *servers))


def _application(name: str, network: str) -> Node:
    server = common_nodes.server(name, f"{network}.2", web_port=SERVER_PORT, echo_port=SERVER_ECHO_PORT)
    return Node(name, "server", routes=(Route("default", (f"{network}.1",)),), programs=(server,))


def facebook(*options: str, mux_count: int = 2) -> Topology:
    """``options``: the muxes' command-line options instead of the defaults."""
    plain = ananta_bgp(*(options or common_nodes.SPEAKER), mux_count=mux_count)
    with_vip = plain.node("host3")
    programs = (_proxy(), with_vip.programs[1])
    hosts = [node for node in plain.nodes if node.role == "host"]
    nodes = [node for node in plain.nodes if node.role != "host"]
    nodes += [replace(with_vip, name=host.name, routes=host.routes, programs=programs) for host in hosts]
    nodes += [_application(name, network) for name, network in APPLICATIONS.items()]
    links = [*plain.links, *(common_nodes.link("router", name, network) for name, network in APPLICATIONS.items())]
    dips = {f"h{host.name[-1]}": plain.port(host.name).ip for host in hosts}
    config = {"muxes": plain.config["muxes"], "services": common_nodes.services(dips)}
    return Topology("facebook", tuple(nodes), tuple(links), config)
