"""A map as the files of gdnsd, an authoritative DNS server that answers by client subnet. Pure.

Each group is a network of gdnsd's geoip plugin, and each PoP one of its datacenters; a set of weights is a datacenter
whose resource is of the weighted plugin. A query with a client subnet (ECS, RFC 7871) is answered for the subnet, any
other for the address of the resolver. Source: gdnsd-plugin-geoip(8), gdnsd-plugin-weighted(8), gdnsd.config(5).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from lbmux.addresses import Address
from lbmux.errors import LbmuxError
from lbmux.steering.measurements import Network
from lbmux.steering.steering_map import SteeringMap, Weights

MOST_DATACENTERS = 254
RESOURCE = "steer"
SCALE = 100
"""gdnsd's weights are integers."""


class TooManyAnswersError(LbmuxError):
    """The map has more different answers (PoPs and sets of weights) than gdnsd supports."""

    answers: int

    def __str__(self) -> str:
        return f"{self.answers} different answers in the map: gdnsd supports {MOST_DATACENTERS}"


@dataclass(frozen=True)
class Server:
    """The addresses that gdnsd listens on, and the directories of its own files."""

    listen: Sequence[Address]
    port: int
    run_directory: str
    state_directory: str


def files(steering_map: SteeringMap, server: Server, serial: int) -> dict[str, str]:
    """Return the text of each file by its path in gdnsd's configuration directory."""
    mixes: dict[tuple[tuple[str, float], ...], str] = {}
    networks = "".join(
        f"{prefix} => {_datacenter(weights, mixes)}\n" for prefix, weights in _networks(steering_map).items()
    )
    pops = [steering_map.default, *(pop for pop in steering_map.pops if pop != steering_map.default)]
    if len(pops) + len(mixes) > MOST_DATACENTERS:
        raise TooManyAnswersError(len(pops) + len(mixes))
    zone = steering_map.name.rstrip(".")
    return {
        "config": "\n".join([*_config(steering_map, server, pops, mixes), ""]),
        "geoip/networks": networks,
        f"zones/{zone}": "\n".join([*_zone(steering_map, server, serial), ""]),
    }


def _networks(steering_map: SteeringMap) -> dict[Network, Weights]:
    """Return the groups, and each resolver that no group contains exactly, as a network of its own."""
    resolvers = {ip_network(address): {pop: 1.0} for address, pop in steering_map.resolvers.items()}
    return {**resolvers, **steering_map.groups}


def _datacenter(weights: Weights, mixes: dict[tuple[tuple[str, float], ...], str]) -> str:
    if len(weights) == 1:
        return _quoted(next(iter(weights)))
    return mixes.setdefault(tuple(sorted(weights.items())), f"mix{len(mixes)}")


def _config(
    steering_map: SteeringMap, server: Server, pops: Sequence[str], mixes: Mapping[tuple[tuple[str, float], ...], str]
) -> Iterator[str]:
    names = ", ".join([*map(_quoted, pops), *mixes.values()])
    yield "options => {"
    yield f"  listen => [ {', '.join(map(str, server.listen))} ], dns_port => {server.port}, min_ttl => 1,"
    yield f"  run_dir => {_quoted(server.run_directory)}, state_dir => {_quoted(server.state_directory)},"
    yield "}"
    yield "plugins => {"
    yield f"  geoip => {{ maps => {{ {RESOURCE} => {{ datacenters => [ {names} ], nets => networks }} }},"
    yield f"    resources => {{ {RESOURCE} => {{ map => {RESOURCE}, service_types => up, dcmap => {{"
    for pop in pops:
        yield f"      {_quoted(pop)} => {{ {_addresses(steering_map.pops[pop])} }},"
    yield from (f"      {name} => %weighted!{name}," for name in mixes.values())
    yield "    } } } },"
    if mixes:
        yield "  weighted => { service_types => up, multi => false, up_thresh => 0.01,"
        yield from (f"    {name} => {{ {_weighted(steering_map, mix)} }}," for mix, name in mixes.items())
        yield "  },"
    yield "}"


def _by_family(addresses: Iterable[str]) -> dict[int, list[str]]:
    families: dict[int, list[str]] = {}
    for text in addresses:
        families.setdefault(ip_address(text).version, []).append(text)
    return families


def _addresses(addresses: Iterable[str]) -> str:
    families = _by_family(addresses).items()
    return ", ".join(f"addrs_v{family} => [ {', '.join(texts)} ]" for family, texts in families)


def _weighted(steering_map: SteeringMap, mix: Iterable[tuple[str, float]]) -> str:
    """Return a choice of one PoP by weight for each family; a PoP's first address of the family counts."""
    choices: dict[int, list[str]] = {}
    for pop, weight in mix:
        for family, texts in _by_family(steering_map.pops[pop]).items():
            choices.setdefault(family, []).append(f"{_quoted(pop)} => [ {texts[0]}, {round(weight * SCALE)} ]")
    return ", ".join(f"addrs_v{family} => {{ {', '.join(texts)} }}" for family, texts in choices.items())


def _zone(steering_map: SteeringMap, server: Server, serial: int) -> Iterator[str]:
    """Yield a zone of the name itself, which its parent delegates to the server."""
    yield f"@ SOA ns hostmaster ( {serial} 7200 1800 259200 {steering_map.ttl_s} )"
    yield "@ NS ns"
    yield from (f"ns {'A' if address.version == 4 else 'AAAA'} {address}" for address in server.listen)
    yield f"@ {steering_map.ttl_s} DYNA geoip!{RESOURCE}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
