"""What a mux says to its routers by BGP, as data: peers, attributes, timers.  Pure.

A mux announces the addresses of its services, each as a /32 or /128, with itself as the next hop (RFC 4760).
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, NamedTuple

from lbmux.addresses import Address
from lbmux.config.models import Config
from lbmux.errors import SetupError

Prefix = IPv4Network | IPv6Network

DEFAULT_AS, DEFAULT_PEER_AS = 65001, 64512
LARGEST_AS = 2**32 - 1
PREPENDED = 3
"""How often a route of last resort has the own AS more in its path."""
ESTABLISHED = "established"
"""The state of a session that is up."""


@dataclass(frozen=True)
class Peer:
    """A router."""

    address: Address
    number: int = DEFAULT_PEER_AS

    @classmethod
    def parse(cls, text: str) -> "Peer":
        """``ADDR`` or ``ADDR:AS``, an IPv6 address in brackets there; ValueError for anything else."""
        try:
            peer = cls(ip_address(text))
        except ValueError:
            address, _, number = text.rpartition(":")
            try:
                peer = cls(ip_address(_bare(address)), int(number))
            except ValueError:
                raise ValueError(f"{text!r} is not ADDRESS or ADDRESS:AS, nor [ADDRESS]:AS of IPv6") from None
        if peer.address.is_link_local:
            raise ValueError(f"{text!r} is link-local: a session needs an address that routes can lead to")
        if not 0 < peer.number <= LARGEST_AS:
            raise ValueError(f"{text!r}: an AS number is 1 to {LARGEST_AS}")
        return peer


def _bare(address: str) -> str:
    """Before an AS number, where IPv6 needs its brackets: without them the number would be a part of it."""
    if address.startswith("[") and address.endswith("]"):
        return address[1:-1]
    return str(IPv4Address(address))


def parse_community(text: str) -> tuple[int, int]:
    """``AS:VALUE``, 16 bits each (RFC 1997); ValueError for anything else."""
    high, _, low = text.partition(":")
    if not (high.isdecimal() and low.isdecimal() and int(high) < 65536 and int(low) < 65536):
        raise ValueError(f"{text!r} is not AS:VALUE, each up to 65535")
    return int(high), int(low)


@dataclass(frozen=True)
class Bgp:
    """One mux's side of its sessions.  ``local`` and ``local6``: its addresses in them, and the next hops that it
    announces; prefixes of a family without one are not announced.  A session has the family of its peer, and carries
    both."""

    local: IPv4Address | None
    peers: tuple[Peer, ...]
    number: int = DEFAULT_AS
    hold_s: int = 3
    password: str = ""
    communities: tuple[tuple[int, int], ...] = ()
    med: int | None = None
    bfd: bool = False
    bfd_interval_ms: int = 50
    bfd_multiplier: int = 3
    local6: IPv6Address | None = None
    stall_s: float = 5.0
    """How long a stalled packet loop keeps the routes while the kernel's program forwards."""

    @property
    def router_id(self) -> str:
        """Four bytes of no meaning that no other router of this AS has (RFC 6286): without IPv4, by the address."""
        if self.local is not None:
            return str(self.local)
        return str(IPv4Address(zlib.crc32(self.local6.packed) or 1 if self.local6 else 1))

    def local_to(self, peer: Peer) -> Address:
        """SetupError where there is no own address of that family."""
        own = self.local if peer.address.version == 4 else self.local6
        if own is None:
            family = f"IPv{peer.address.version}"
            raise SetupError(f"BGP peer {peer.address}", f"no own {family} address for a session", "--bgp-address")
        return own


@dataclass(frozen=True)
class Neighbour:
    """A session as it is.  ``uptime_s`` is None while it is not up; ``prefixes`` counts what it was told.

    ``reason``: why it is not up, in the words of the speaker or the peer; empty where it is up, or they give none.
    """

    address: str
    number: int
    state: str
    uptime_s: float | None = None
    prefixes: int = 0
    bfd: str = ""
    reason: str = ""

    @property
    def is_up(self) -> bool:
        return self.state == ESTABLISHED


class Route(NamedTuple):
    """What is announced; ``is_last_resort``: with a longer AS path, for routers that have no other."""

    prefix: Prefix
    is_last_resort: bool = False


def prefixes_of(config: Config) -> frozenset[Prefix]:
    """The VIPs of a configuration."""
    return frozenset(ip_network(service.vip) for service in config.services)


def routes_of(config: Config) -> frozenset[Route]:
    """What a mux announces with this configuration in force, in which backends that are down are left out.

    No VIP is withdrawn because its backends are down: this mux may be the last to announce it, and cannot know.  A VIP
    whose services all say ``withdraw`` gets a longer path: the routers know whether they have a better one.
    """
    serves = {service.vip for service in config.services if service.backends or service.on_no_backend != "withdraw"}
    return frozenset(Route(ip_network(service.vip), service.vip not in serves) for service in config.services)


def in_order(prefixes: Iterable[Prefix], version: int | None = None) -> list[str]:
    """As text; of one family where ``version`` says so."""
    chosen = [prefix for prefix in prefixes if version in (None, prefix.version)]
    return [str(prefix) for prefix in sorted(chosen, key=lambda one: (one.version, one.network_address.packed))]


def describe(speaker: str, routes: Iterable[Route], neighbours: Iterable[Neighbour]) -> dict[str, Any]:
    """As the control socket answers."""
    routes = [*routes]
    return {
        "version": 1,
        "speaker": speaker,
        "prefixes": in_order(route.prefix for route in routes),
        "last_resort": in_order(route.prefix for route in routes if route.is_last_resort),
        "neighbours": [vars(neighbour) for neighbour in neighbours],
    }
