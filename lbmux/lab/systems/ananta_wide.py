"""Ananta with many hosts whose agents all translate, so that second chance has many hosts to try."""

from lbmux.lab.systems import common_nodes
from lbmux.lab.topology import (
    ECHO_PORT,
    SERVER_ECHO_PORT,
    SERVER_PORT,
    TUNNEL_ADVMSS,
    VIP,
    Node,
    Route,
    Topology,
    ananta_bgp,
)

HOSTS, FLOWS = 24, 65536
"""``FLOWS``: rows of each flow table, small since many of them share one machine."""


def wide(*options: str, hosts: int = HOSTS, mux_count: int = 2) -> Topology:
    """``options``: the muxes' command-line options instead of the defaults."""
    plain = ananta_bgp(*(options or common_nodes.SPEAKER), mux_count=mux_count)
    agent = plain.node("host1").programs[1]
    numbers = range(1, hosts + 1)

    def host(n: int) -> Node:
        server = common_nodes.server(f"h{n}", f"10.1.{n}.2", web_port=SERVER_PORT, echo_port=SERVER_ECHO_PORT)
        route = Route("default", (f"10.1.{n}.1",), TUNNEL_ADVMSS)
        return Node(f"host{n}", "host", routes=(route,), programs=(server, agent))

    nodes = [node for node in plain.nodes if node.role != "host"]
    links = [link for link in plain.links if not link.b.node.startswith("host")]
    backends = [{"name": f"h{n}", "dip": f"10.1.{n}.2", "port": SERVER_ECHO_PORT} for n in numbers]
    echo = {"name": "echo", "vip": VIP, "protocol": "tcp", "port": ECHO_PORT, "health": common_nodes.HEALTH}
    config = {
        "muxes": plain.config["muxes"], "flows": {"limit": FLOWS}, "services": [echo | {"backends": backends}]
    }  # fmt: skip
    links += [common_nodes.link("router", f"host{n}", f"10.1.{n}") for n in numbers]
    return Topology("ananta-wide", (*nodes, *map(host, numbers)), tuple(links), config)
