"""The map from client groups to PoPs, as an object and as JSON; `lbmux steer publish` puts it in force.

A group's answer has a weight for each of its PoPs; most groups have one PoP. ``default`` is the answer for clients that
belong to no group.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from ipaddress import ip_network
from pathlib import Path

from lbmux.errors import ConfigError, Problem
from lbmux.steering.measurements import Network

VERSION = 1
Weights = Mapping[str, float]
"""Shares of the users by PoP; they add up to 1."""


@dataclass(frozen=True)
class Routes:
    """How a PoP's muxes announce their VIPs by BGP; ``withdrawn``: not at all."""

    withdrawn: bool = False
    prepend: int = 0
    length: int = 32
    length6: int = 128


@dataclass(frozen=True)
class SteeringMap:
    """``pops``: addresses by PoP. ``estimated``: groups without samples of their own.

    ``resolvers``: the PoP for queries that name no client subnet, by the address of the resolver. ``fractions``: the
    share of each PoP's requests that each data centre gets; ``dead``: data centres that requests leave at once.
    ``routes``: by PoP.
    """

    name: str
    ttl_s: int
    pops: Mapping[str, tuple[str, ...]]
    groups: Mapping[Network, Weights]
    default: str
    estimated: frozenset[Network] = frozenset()
    resolvers: Mapping[str, str] = field(default_factory=dict)
    fractions: Mapping[str, Weights] = field(default_factory=dict)
    dead: frozenset[str] = frozenset()
    routes: Mapping[str, Routes] = field(default_factory=dict)

    def routes_of(self, pop: str) -> Routes:
        """Return a PoP's routes; a map of an earlier version says only whether the PoP has users."""
        return self.routes.get(pop) or Routes(not any(pop in weights for weights in self.groups.values()))

    def to_json(self) -> str:
        plain = asdict(self) | {
            "version": VERSION, "groups": {str(prefix): dict(weights) for prefix, weights in self.groups.items()},
            "estimated": sorted(map(str, self.estimated)), "dead": sorted(self.dead),
        }  # fmt: skip
        return json.dumps(plain, indent=1) + "\n"


def from_json(text: str, path: Path) -> SteeringMap:
    """Parse a map; raise ConfigError if the text is not one."""
    try:
        plain = json.loads(text)
        if plain.pop("version") != VERSION:
            raise ValueError("has another version")
        groups = {ip_network(prefix): weights for prefix, weights in plain.pop("groups").items()}
        estimated = frozenset(map(ip_network, plain.pop("estimated")))
        plain["dead"] = frozenset(plain.get("dead", ()))
        plain["routes"] = {pop: Routes(**routes) for pop, routes in plain.get("routes", {}).items()}
        plain["pops"] = {pop: tuple(addresses) for pop, addresses in plain["pops"].items()}
        return SteeringMap(**plain, groups=groups, estimated=estimated)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(path, (Problem(None, "", f"is not a map of `lbmux steer`: {error}"),)) from error


def read(path: Path) -> SteeringMap:
    """Read a map from a file; raise ConfigError."""
    try:
        return from_json(path.read_text(), path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, (Problem(None, "", f"cannot be read: {error}"),)) from error


def write(path: Path, steering_map: SteeringMap) -> None:
    """Write a map atomically."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(steering_map.to_json())
        new.replace(path)
    except OSError as error:
        raise ConfigError(path, (Problem(None, "", f"cannot be written: {error.strerror}"),)) from error
