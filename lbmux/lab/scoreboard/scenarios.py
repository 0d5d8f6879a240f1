"""The systems on the scoreboard: each is a topology of the lab, with what an experiment must know about it."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lbmux.lab.lab import Lab
from lbmux.lab.managed import with_managers
from lbmux.lab.scoreboard.global_state import RESOLVERS, is_normal
from lbmux.lab.systems import common_nodes
from lbmux.lab.systems.ananta_wide import HOSTS, wide
from lbmux.lab.systems.cloudflare import anycast, balanced, cloudflare
from lbmux.lab.systems.facebook import facebook
from lbmux.lab.systems.facebook_global import facebook_global
from lbmux.lab.systems.in_ipv6 import in_ipv6
from lbmux.lab.systems.maglev_topology import maglev
from lbmux.lab.systems.seesaw import ACTIVE, seesaw
from lbmux.lab.topology import ECHO_PORT, SERVER_ECHO_PORT, VIP, VIP6, Topology, ananta_bgp

FORWARDER = ("nothing", "kill-mux", "stop-mux", "freeze-mux", "cut-link", "lose-mux")
BACKEND = (
    "kill-backend", "kill-host", "drain-backend", "add-backend", "remove-backend", "reweight-backend", "reload",
)  # fmt: skip
PAIRS = (
    "kill-mux+add-backend", "kill-mux+drain-backend", "freeze-mux+reweight-backend", "cut-link+add-backend",
    "cut-link+drain-backend", "lose-mux+add-backend", "lose-mux+drain-backend", "three-changes+lose-mux+three-changes",
)  # fmt: skip
AGENT = ("restart-agent", "crash-agent")
SILENCE = ("half-closed", "idle-push", "idle-change")
POOL = (*FORWARDER, "add-mux", "reseed-router", *BACKEND, "move-irq", "flood-ack", *SILENCE, *PAIRS)
FLOODS = ("flood-syn", "flood-udp", "flood-icmp", "flood-fragments", "flood-vip", "flash-crowd")
EDGES = (
    *FORWARDER, "add-mux", "reseed-router", "kill-backend", "drain-backend", "reload", "kill-mux+add-mux",
    "cut-link+reload",
)  # fmt: skip
MANAGED = (
    "nothing", "kill-manager", "freeze-manager", "lose-2-managers", "lose-3-managers", "partition-mux",
    "restart-mux-without-managers", "lose-agent", "upgrade",
)  # fmt: skip
UDP = (
    "nothing", "kill-mux", "stop-mux", "lose-mux", "drain-backend", "add-backend", "remove-backend",
    "reweight-backend", "reload", "three-changes+three-changes",
)  # fmt: skip
WIDE = (
    "nothing", "kill-mux", "lose-mux", "kill-backend", "kill-host", "flood-ack", "reseed-table",
    "reseed-table+lose-mux",
)  # fmt: skip
GLOBAL = ("nothing", "drain-dc", "lose-dc", "drain-pop", "lose-pop", "resolver-ignores-ttl", "release-proxy")
MANAGERS = 5
NEW_BACKEND: dict[str, Any] = {"name": "h3", "dip": "10.1.3.2", "port": ECHO_PORT}
"""The backend that event add-backend adds: the third host, whose server has the VIP."""


@dataclass(frozen=True)
class Scenario:
    """A system and its events.

    ``forwarders``: the nodes that the router sends VIP packets to, each running the program ``forwarder``.  ``spare``:
    one more, which joins with event add-mux.  ``backends``: host by backend; each runs the program ``server``.
    ``next_hops``: each router's next hops to the VIP in normal operation.  ``active``: a node and the address that it
    has in normal operation.  ``pop``: the backends in the PoP that event lose-pop acts on.  ``balances``: whether the
    forwarders are edges that know all backends, not only their own.  ``resolvers``: the resolver by node of
    users, whose HTTPS requests are the traffic then; else ``traffic`` is the module that generates it.  ``is_normal``:
    what else holds in normal operation.  ``vip``: the address that it uses.
    """

    name: str
    topology: Callable[[], Topology]
    forwarders: tuple[str, ...]
    events: tuple[str, ...]
    next_hops: Mapping[str, frozenset[str]]
    forwarder: str = "mux"
    spare: str = ""
    server: str = "server"
    backends: Mapping[str, str] = field(default_factory=lambda: _hosts(3))
    active: tuple[str, str] | None = None
    pop: frozenset[str] = frozenset()
    balances: bool = False
    resolvers: Mapping[str, str] = field(default_factory=dict)
    is_normal: Callable[[Lab], bool] = lambda lab: True
    traffic: str = "lbmux.lab.connections"
    vip: str = VIP


def only_echo(topology: Topology, *backends: str) -> Topology:
    """Return the topology with its echo service alone, which starts with these backends."""
    config = copy.deepcopy(topology.config)
    (echo,) = (service for service in config["services"] if service["name"] == "echo")
    echo["backends"] = [backend for backend in echo["backends"] if backend["name"] in backends]
    return replace(topology, name=f"scoreboard-{topology.name}", config=config | {"services": [echo]})


def _ananta() -> Topology:
    plain = ananta_bgp(*common_nodes.SPEAKER, mux_count=3)
    backends = [{"name": f"h{n}", "dip": f"10.1.{n}.2", "port": SERVER_ECHO_PORT} for n in (1, 2)]
    echo = {"name": "echo", "vip": VIP, "protocol": "tcp", "port": ECHO_PORT, "health": common_nodes.HEALTH}
    return only_echo(replace(plain, config=plain.config | {"services": [echo | {"backends": backends}]}), "h1", "h2")


def _udp() -> Topology:
    """Return Ananta's topology with the echo service over UDP. Health checks connect to each server's TCP port."""
    plain = _ananta()
    (echo,) = plain.config["services"]
    config = plain.config | {"services": [echo | {"protocol": "udp"}]}
    return replace(plain, name="scoreboard-ananta-udp", config=config)


def _managed() -> Topology:
    return replace(with_managers(_ananta(), MANAGERS), name="scoreboard-ananta-managed")


def _wide() -> Topology:
    return replace(wide(), name="scoreboard-ananta-wide")


def _hosts(count: int) -> dict[str, str]:
    return {f"h{n}": f"host{n}" for n in range(1, count + 1)}


def _gateways(*addresses: str) -> frozenset[str]:
    return frozenset(addresses)


def _balanced6() -> Topology:
    return in_ipv6(_all_edges(balanced(spare=True)), "scoreboard-cloudflare-balanced-ipv6")


def _all_edges(topology: Topology) -> Topology:
    return only_echo(topology, "h1", "h2", "h3", "h4", "h5")


POPS: dict[str, Any] = {
    "forwarders": ("host1", "host2", "host3", "host4"),
    "events": (*EDGES, "drain-pop", "lose-pop", "kill-mux+lose-pop"),
    "next_hops": {
        "router": _gateways("10.255.1.2"),
        "pop1": _gateways("10.1.1.2", "10.1.2.2"),
        "pop2": _gateways("10.2.1.2", "10.2.2.2"),
    },
    "forwarder": "edge",
    "spare": "host5",
    "backends": _hosts(5),
    "pop": frozenset({"h1", "h2", "h5"}),
}
"""What the systems of two PoPs have in common; host5 joins the first one."""
HOPS6 = {
    "router": _gateways("2001:db8:255:1::2"),
    "pop1": _gateways("2001:db8:1:1::3", "2001:db8:1:2::3"),
    "pop2": _gateways("2001:db8:2:1::3", "2001:db8:2:2::3"),
}
"""The same in IPv6, where an interface's first address is the one that was added last: of an edge, its mux's."""
MUXES, MUX_HOPS = ("mux1", "mux2"), {"router": _gateways("10.0.1.2", "10.0.2.2")}
SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("ananta", _ananta, MUXES, (*POOL, *AGENT, *FLOODS), MUX_HOPS, spare="mux3"),
        Scenario(
            "ananta-udp", _udp, MUXES, UDP, MUX_HOPS, spare="mux3", traffic="lbmux.lab.datagrams",
        ),
        Scenario(
            "maglev", lambda: only_echo(maglev(mux_count=3), "h1", "h2"), MUXES, (*POOL, *FLOODS), MUX_HOPS,
            spare="mux3",
        ),
        Scenario(
            "facebook", lambda: only_echo(facebook(mux_count=3), "h1", "h2"), MUXES, POOL, MUX_HOPS, spare="mux3",
            server="haproxy",
        ),
        Scenario(
            "seesaw", lambda: only_echo(seesaw(), "h1", "h2"), MUXES,
            (*FORWARDER, *BACKEND, "flood-ack", *SILENCE, *PAIRS), {}, active=("mux1", ACTIVE),
        ),
        Scenario(
            "cloudflare", lambda: only_echo(cloudflare(), "h1", "h2", "h3"), ("host1", "host2"),
            EDGES, {"router": _gateways("10.1.1.2", "10.1.2.2")}, "edge", "host3",
        ),
        Scenario("cloudflare-anycast", lambda: _all_edges(anycast(spare=True)), **POPS),
        Scenario("cloudflare-balanced", lambda: _all_edges(balanced(spare=True)), **POPS, balances=True),
        Scenario("cloudflare-balanced-ipv6", _balanced6, **POPS | {"next_hops": HOPS6}, balances=True, vip=VIP6),
        Scenario(
            "facebook-global", facebook_global, ("pop1-mux", "dc1-mux"), GLOBAL, {}, backends={},
            pop=frozenset({"pop1"}), resolvers=RESOLVERS, is_normal=is_normal,
        ),
        Scenario("ananta-managed", _managed, MUXES, MANAGED, MUX_HOPS, spare="mux3"),
        Scenario("ananta-wide", _wide, MUXES, WIDE, MUX_HOPS, backends=_hosts(HOSTS)),
    )
}  # fmt: skip
