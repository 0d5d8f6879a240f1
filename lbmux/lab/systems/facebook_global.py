"""Facebook's design beyond one data centre: PoPs near the users, data centres, and a wide-area network between them.

A site is a PoP, a data centre or a region of users.  A PoP ends TCP and TLS: a mux and hosts with agent and HAProxy,
which keep connections to the data centres, and a server of HTTP/3.  A data centre has the same layers, with application
servers behind its proxies.
Each region has clients and a resolver; a DNS server answers by the map of `lbmux steer`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from lbmux.lab.systems import common_nodes
from lbmux.lab.systems.wan import wan
from lbmux.lab.topology import (
    IPV6_SYSCTLS,
    ROUTER_SYSCTLS,
    ROUTER_SYSCTLS_IPV6,
    SERVER_ECHO_PORT,
    SERVER_PORT,
    VIP_ON_LOOPBACK,
    WIRE,
    Link,
    Node,
    Port,
    Program,
    Route,
    Topology,
    default_routes,
    subnet,
)
from lbmux.plurals import counted

NAME, HTTPS_PORT, TTL_S = "www.example.net", 443, 5
MOST = 20
"""The largest number of sites of a kind."""
HOSTS = 2
"""The number of hosts in a PoP or data centre, by default."""
NEAR_MS, FARTHER_MS, POP_TO_CENTRE_MS, USER_TO_CENTRE_MS, ELSEWHERE_MS = 20, 40, 130, 150, 40
"""Round-trip times: to a region's nearest PoP, more for each further one; to data centres; between all other sites."""
CAPACITY = 1000
"""Users for which a PoP has capacity; a region has 100."""
USERS = 100
COLLECT_S = 10
"""How often round-trip times of real connections are collected."""


@dataclass(frozen=True)
class Site:
    """``number`` is part of the site's addresses.  ``vips``, ``hosts``: a PoP's or data centre's, IPv4 and IPv6."""

    name: str
    number: int
    vips: tuple[str, ...] = ()
    hosts: int = HOSTS

    @property
    def is_pop(self) -> bool:
        return self.name.startswith("pop")

    @property
    def networks(self) -> tuple[str, ...]:
        """The prefixes that the site's router has, and the addresses of its VIPs."""
        vips = tuple(f"{vip}/32" for vip in self.vips[:1])
        return (f"10.{self.number}.0.0/16", f"2001:db8:{self.number}::/48", *vips)

    @property
    def on_wan(self) -> tuple[str, str]:
        """The router's addresses on the wide-area network."""
        return f"10.255.0.{self.number}", f"2001:db8:255::{self.number}"


def pop(n: int, hosts: int = HOSTS) -> Site:
    return Site(f"pop{n}", n, (f"192.0.2.{n}", f"2001:db8:{n}:ffff::1"), hosts)


def centre(n: int, hosts: int = HOSTS) -> Site:
    return Site(f"dc{n}", 100 + n, (f"203.0.113.{n}", f"2001:db8:{100 + n}:ffff::1"), hosts)


def region(n: int) -> Site:
    return Site(f"region{n}", 200 + n)


AUTHORITY = Site("dns", 254)


def facebook_global(
    pops: int = 3, dcs: int = 2, regions: int = 4, hosts: int = HOSTS, resolvers: Sequence[int] = ()
) -> Topology:
    """``hosts``: in each PoP and data centre.  ``resolvers``: whose resolver each region uses, default its own.

    Raise ValueError for wrong numbers of sites.
    """
    for count, what in ((pops, "PoP"), (dcs, "data centre"), (regions, "region")):
        if not 1 <= count <= MOST:
            raise ValueError(f"{counted(count, what)}: use 1 to {MOST}")
    all_pops, centres = [pop(n, hosts) for n in range(1, pops + 1)], [centre(n, hosts) for n in range(1, dcs + 1)]
    places = [region(n) for n in range(1, regions + 1)]
    sites = [*all_pops, *centres, *places, AUTHORITY]
    nodes = [wan("wan", {site.name: f"to-{site.name}" for site in sites}, *_paths(all_pops, centres, places))]
    links = [_wan_link(site) for site in sites]
    upstreams = [text for one in centres for text in ("--server", one.name, one.vips[0], str(HTTPS_PORT))]
    for site in (*all_pops, *centres):
        to_servers = ("--tls", *upstreams) if site in all_pops else ("--server", "app", "127.0.0.1", str(SERVER_PORT))
        nodes += [_mux(site), *(_host(site, n, to_servers) for n in _numbers(site))]
        names = ["mux", *(f"host{n}" for n in _numbers(site))]
        links += [subnet(f"{site.name}-{name}", *_networks(site, n), site.name) for n, name in enumerate(names)]
    for at, site in enumerate(places, 1):
        nodes.append(_users(site, region(resolvers[at - 1] if resolvers else at)))
        links.append(subnet(f"users{at}", *_networks(site, 0), site.name))
    nodes += [_router(site, sites) for site in sites]
    files = {f"{site.name}.yaml": yaml.safe_dump(_config(site)) for site in (*all_pops, *centres)}
    steering = _steering(all_pops, centres)
    files |= {"steering.yaml": yaml.safe_dump(steering, sort_keys=False), **_groups(all_pops, places)}
    return Topology("facebook-global", tuple(nodes), tuple(links), {"services": []}, files)


def resolver_of(site: Site) -> str:
    """Return the address of a region's resolver, which is that of its users' node too."""
    return f"10.{site.number}.0.2"


def rtt_ms(place: int, to: int, pops: int) -> int:
    """Return the round-trip time from a region to a PoP, both counted from 1."""
    return NEAR_MS + FARTHER_MS * ((to - place) % pops)


def _networks(site: Site, n: int) -> tuple[str, str]:
    return f"10.{site.number}.{n}", f"2001:db8:{site.number}:{n}"


def _paths(pops: Sequence[Site], centres: Sequence[Site], places: Sequence[Site]) -> Iterator[str]:
    """Yield delays between sites as options of `lbmux lab wan`."""

    def path(a: Site, b: Site, round_trip_ms: float) -> str:
        return f"{a.name}>{b.name}:{round_trip_ms / 2:g}"

    for n, place in enumerate(places, 1):
        yield from (path(place, one, rtt_ms(n, at, len(pops))) for at, one in enumerate(pops, 1))
        yield from (path(place, one, USER_TO_CENTRE_MS) for one in centres)
        yield from (path(place, other, ELSEWHERE_MS) for other in (*places[: n - 1], AUTHORITY))
    for one in pops:
        yield from (path(one, other, POP_TO_CENTRE_MS) for other in centres)
    yield from (path(AUTHORITY, one, ELSEWHERE_MS) for one in (*pops, *centres))


def _wan_link(site: Site) -> Link:
    address, address6 = site.on_wan
    far = Port(site.name, "wan", f"{address}/24", WIRE, (f"{address6}/64",))
    return Link(Port("wan", f"to-{site.name}"), far)


def _router(site: Site, sites: Sequence[Site]) -> Node:
    """Return a site's router, with routes to its mux and all other sites. The DNS server is its site's router."""
    routes = [
        Route(network, (other.on_wan[":" in network],))
        for other in sites if other != site and other != AUTHORITY for network in other.networks
    ]  # fmt: skip
    routes += [
        Route(f"{vip}/{128 if ':' in vip else 32}", (f"{network}{'::' if ':' in vip else '.'}2",))
        for vip, network in zip(site.vips, _networks(site, 0), strict=False)
    ]
    programs = _authority() if site == AUTHORITY else ()
    sysctls = ROUTER_SYSCTLS | IPV6_SYSCTLS | ROUTER_SYSCTLS_IPV6
    return Node(site.name, "router", sysctls, routes=tuple(routes), programs=programs)


def _gateways(site: Site, n: int) -> tuple[str, str]:
    network, network6 = _networks(site, n)
    return f"{network}.1", f"{network6}::1"


def _mux(site: Site) -> Node:
    program = Program(
        "mux", "lbmux.cli.main",
        ("mux", "-c", f"{{state}}/{site.name}.yaml", "-i", "eth0", "--driver", "{mux_driver}", "--xdp-mode", "native",
         "--control", "{state}/{node}.sock"),
    )  # fmt: skip
    routes = default_routes(*_gateways(site, 0))
    return Node(f"{site.name}-mux", "mux", IPV6_SYSCTLS, routes=routes, programs=(program,))


def _host(site: Site, n: int, to_servers: tuple[str, ...]) -> Node:
    """Return a host with an agent in mode local, and HAProxy; in a data centre an application server behind it, too."""
    name = f"{site.name}-host{n}"
    proxy = Program("haproxy", "lbmux.lab.tls_proxy", ("{state}/{node}-haproxy", "--name", name, *to_servers))
    agent = Program(
        "agent", "lbmux.cli.main",
        ("agent", "-c", f"{{state}}/{site.name}.yaml", "-i", "eth0", "--mode", "local", "--driver", "{agent_driver}",
         "--control", "{state}/{node}.sock"),
    )  # fmt: skip
    server = common_nodes.server(name, "127.0.0.1", web_port=SERVER_PORT, echo_port=SERVER_ECHO_PORT)
    http3 = Program("quic", "lbmux.lab.quic_server", ("{state}/{node}-quic", name, site.vips[0], str(HTTPS_PORT)))
    programs = (proxy, http3, agent) if site.is_pop else (server, proxy, agent)
    vips = tuple(("lo", f"{vip}/{128 if ':' in vip else 32}") for vip in site.vips)
    routes = default_routes(*_gateways(site, n), is_host=True)
    return Node(name, "host", IPV6_SYSCTLS | VIP_ON_LOOPBACK, vips, routes, programs)


def _users(site: Site, resolves_at: Site) -> Node:
    """Return the node of a region's users.  Its resolver runs here unless the region uses another region's."""
    programs: tuple[Program, ...] = ()
    if site == resolves_at:
        where = ("--listen", resolver_of(site), "--authority", AUTHORITY.on_wan[0], "--zone", NAME)
        programs = (Program("resolver", "lbmux.lab.resolver", ("{state}/{node}-unbound", *where)),)
    name = site.name.replace("region", "users")
    return Node(name, "client", IPV6_SYSCTLS, routes=default_routes(*_gateways(site, 0)), programs=programs)


def _authority() -> tuple[Program, ...]:
    address = AUTHORITY.on_wan[0]
    steer = ("steer", "run", "{state}/dns", "-c", "{state}/steering.yaml", "--listen", address)
    return (
        Program("gdnsd", "lbmux.lab.dns_authority", ("{state}/dns", "{state}/rtt.csv", "{state}/latency.csv")),
        Program("steer", "lbmux.cli.main", steer),
    )


def _config(site: Site) -> dict[str, Any]:
    """Return the file that a site's mux and agents share."""
    services = []
    for family, (vip, suffix) in enumerate(zip(site.vips, ("", "6"), strict=True)):
        dips = {
            f"{site.name}-host{n}": f"{_networks(site, n)[family]}{'::' if family else '.'}2" for n in _numbers(site)
        }
        backends = [{"name": name, "dip": dip} for name, dip in dips.items()]
        https = {
            "name": f"https{suffix}", "vip": vip, "protocol": "tcp", "port": HTTPS_PORT,
            "health": common_nodes.HEALTH, "backends": backends,
        }  # fmt: skip
        services.append(https)
        if site.is_pop and not family:
            services.append(https | {"name": "http3", "protocol": "udp"})
    network, network6 = _networks(site, 0)
    return {"muxes": [f"{network}.2", f"{network6}::2"], "services": services}


def _numbers(site: Site) -> range:
    return range(1, site.hosts + 1)


def _steering(pops: Sequence[Site], centres: Sequence[Site]) -> dict[str, Any]:
    """Return the configuration of `lbmux steer run`."""
    return {
        "name": NAME, "ttl_s": TTL_S, "groups": "groups.csv", "latency": "latency.csv", "default": pops[0].name,
        "health": {"kind": "tls", "port": HTTPS_PORT, "interval_s": 1.0, "timeout_s": 1.0, "rise": 2, "fall": 2},
        "pops": [
            {"name": one.name, "addresses": list(one.vips), "capacity": CAPACITY,
             "proxies": [f"{one.name}-host{n}-haproxy.sock" for n in _numbers(one)],
             "agents": [f"{one.name}-host{n}.sock" for n in _numbers(one)]}
            for one in pops
        ],
        "collect_s": COLLECT_S,
        "data_centres": [{"name": one.name, "capacity": CAPACITY} for one in centres],
    }  # fmt: skip


def _groups(pops: Sequence[Site], places: Sequence[Site]) -> dict[str, str]:
    """Return the regions as client groups: /24 and /56, as resolvers report them (RFC 7871, section 11.1)."""
    groups, latency = ["prefix,users,resolver"], ["prefix,pop,rtt_ms"]
    for n, place in enumerate(places, 1):
        for prefix in (f"10.{place.number}.0.0/24", f"2001:db8:{place.number}::/56"):
            groups.append(f"{prefix},{USERS},{resolver_of(place)}")
            latency += [f"{prefix},{one.name},{rtt_ms(n, at, len(pops))}" for at, one in enumerate(pops, 1)]
    return {"groups.csv": "\n".join([*groups, ""]), "rtt.csv": "\n".join([*latency, ""])}
