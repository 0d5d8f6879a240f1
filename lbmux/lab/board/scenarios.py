"""The systems of the scoreboard: each a topology, and what an experiment has to know of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from lbmux.lab.topology import (
    ECHO_PORT,
    SERVER_ECHO_PORT,
    VIP,
    Node,
    Program,
    Topology,
    ananta_bgp,
)

HEALTH = {"kind": "tcp", "interval_s": 0.2, "timeout_s": 0.2, "rise": 1, "fall": 2}
SPEAKER = ("--bgp-speaker", "bird", "--bfd", "--drain", "1")
MUX_EVENTS = (
    "nothing", "kill-mux", "stop-mux", "freeze-mux", "add-mux", "cut-link", "reseed-router",
    "kill-backend", "drain-backend", "add-backend", "reweight-backend", "reload",
    "kill-mux+add-backend", "kill-mux+drain-backend", "freeze-mux+reweight-backend",
)  # fmt: skip
EDGE_EVENTS = (
    "nothing", "kill-mux", "stop-mux", "freeze-mux", "add-mux", "cut-link", "reseed-router",
    "kill-backend", "drain-backend", "reload",
)  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """``fronts``: the nodes that the router sends the VIP's packets to, each by its program ``front``; ``spare``: one
    more, which takes no part until it is added.  ``backends``: where each backend is; ``new``: the one to be added."""

    name: str
    text: str
    topology: Callable[[], Topology]
    front: str
    fronts: tuple[str, ...]
    spare: str
    backends: dict[str, str]
    new: dict[str, Any] | None
    events: tuple[str, ...]


def _pool(tunnel: str, weights: dict[str, int]) -> Topology:
    """Three muxes, of which the third is the spare one, and the echo service on two hosts of three."""
    plain = ananta_bgp(*SPEAKER, mux_count=3)
    backends = [
        {"name": name, "dip": f"10.1.{name[1]}.2", "port": SERVER_ECHO_PORT, "weight": weight}
        for name, weight in weights.items()
    ]
    echo = {"name": "echo", "vip": VIP, "protocol": "tcp", "port": ECHO_PORT, "health": HEALTH, "backends": backends}
    config = {"muxes": plain.config["muxes"], "tunnel": {"kind": tunnel}, "services": [echo]}
    return replace(plain, config=config)


def ananta() -> Topology:
    return replace(_pool("ipip", {"h1": 1, "h2": 1}), name="board-ananta")


def maglev() -> Topology:
    """Weights, GRE, and a table of 65537 slots, which is the default (NSDI 2016, sections 3.4 and 5.3)."""
    return replace(_pool("gre", {"h1": 1, "h2": 2}), name="board-maglev")


def cloudflare() -> Topology:
    """No mux: the hosts have the VIP, and announce it while their own server is healthy."""
    plain = ananta_bgp()
    hosts = {f"host{n}": f"10.1.{n}" for n in (1, 2, 3)}
    peers = [text for network in hosts.values() for text in ("--local", f"{network}.1", "--peer", f"{network}.2")]

    def with_edge(node: Node) -> Node:
        if node.role == "router":
            return replace(node, programs=(replace(node.programs[0], arguments=("{state}/router", *peers)),))
        if node.name not in hosts:
            return replace(node, programs=())
        network = hosts[node.name]
        server = ("--name", f"h{node.name[-1]}", "--address", VIP, "--address", f"{network}.2", "--web-port", "80")
        edge = ("edge", "-c", "{config}", "-i", "eth0", "--control", "{state}/{node}.sock", "--bgp-peer")
        programs = (
            Program("server", "lbmux.lab.server", (*server, "--echo-port", str(ECHO_PORT))),
            Program("edge", "lbmux.cli.main", (*edge, f"{network}.1", *SPEAKER)),
        )
        return replace(node, extra_addresses=(("lo", f"{VIP}/32"),), programs=programs)

    backends = [{"name": f"h{name[-1]}", "dip": f"{network}.2"} for name, network in hosts.items()]
    echo = {"name": "echo", "vip": VIP, "protocol": "tcp", "port": ECHO_PORT, "health": HEALTH, "backends": backends}
    nodes = tuple(with_edge(node) for node in plain.nodes if node.role != "mux")
    links = tuple(link for link in plain.links if not link.b.node.startswith("mux"))
    return replace(plain, name="board-cloudflare", nodes=nodes, links=links, config={"services": [echo]})


NEW_BACKEND = {"name": "h3", "dip": "10.1.3.2", "port": ECHO_PORT}
HOSTS = {"h1": "host1", "h2": "host2", "h3": "host3"}
MUXES = ("mux1", "mux2")
SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "ananta", "router, muxes, host agents with NAT", ananta, "mux", MUXES, "mux3", HOSTS, NEW_BACKEND,
            MUX_EVENTS,
        ),
        Scenario(
            "maglev", "weights, GRE, 65537 slots", maglev, "mux", MUXES, "mux3", HOSTS, NEW_BACKEND, MUX_EVENTS,
        ),
        Scenario(
            "cloudflare", "edges only: hosts announce the VIP", cloudflare, "edge", ("host1", "host2"), "host3",
            HOSTS, None, EDGE_EVENTS,
        ),
    )
}  # fmt: skip
