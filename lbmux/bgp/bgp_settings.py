"""BGP settings and routes as data: peers, attributes, timers.  Pure.

A mux announces each VIP as a /32 or /128, with itself as the next hop (RFC 4271, RFC 4760).
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from lbmux.addresses import Address
from lbmux.config.models import Config
from lbmux.errors import SetupError

Prefix = IPv4Network | IPv6Network

DEFAULT_AS, DEFAULT_PEER_AS = 65001, 64512
LARGEST_AS = 2**32 - 1
PREPENDED = 3
"""Number of times that the own AS is prepended to the path of a route of last resort."""
BLACKHOLE = (65535, 666)
"""The community BLACKHOLE (RFC 7999): the neighbour is asked to drop all packets to the prefix."""
ESTABLISHED = "established"
"""The state of a session that is up."""


@dataclass(frozen=True)
class Peer:
    """A router: its address and its AS number."""

    address: Address
    number: int = DEFAULT_PEER_AS

    @classmethod
    def parse(cls, text: str) -> "Peer":
        """Parse ``ADDR``, ``ADDR:AS`` or ``[ADDR]:AS`` (IPv6); raise ValueError for anything else."""
        try:
            peer = cls(ip_address(text))
        except ValueError:
            address, _, number = text.rpartition(":")
            try:
                peer = cls(ip_address(_bare(address)), int(number))
            except ValueError:
                raise ValueError(f"{text!r} is not ADDRESS, ADDRESS:AS or, for IPv6, [ADDRESS]:AS") from None
        if peer.address.is_link_local:
            raise ValueError(f"{text!r} is link-local; a session needs a routable address")
        if not 0 < peer.number <= LARGEST_AS:
            raise ValueError(f"{text!r}: the AS number should be 1 to {LARGEST_AS}")
        return peer


def _bare(address: str) -> str:
    """Remove the brackets that an IPv6 address needs before an AS number."""
    if address.startswith("[") and address.endswith("]"):
        return address[1:-1]
    return str(IPv4Address(address))


def parse_community(text: str) -> tuple[int, int]:
    """Parse ``AS:VALUE``, 16 bits each (RFC 1997); raise ValueError for anything else."""
    high, _, low = text.partition(":")
    if not (high.isdecimal() and low.isdecimal() and int(high) < 65536 and int(low) < 65536):
        raise ValueError(f"{text!r} is not AS:VALUE, each up to 65535")
    return int(high), int(low)


@dataclass(frozen=True)
class Bgp:
    """A mux's side of its sessions.

    ``local`` and ``local6`` are its addresses in sessions, and the next hops of its routes; prefixes of a family
    without an address are not announced.  A session uses the address family of its peer, and carries routes of both.
    """

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
    """How long a stalled packet loop keeps the routes while the kernel program forwards, in seconds."""

    @property
    def router_id(self) -> str:
        """A number that is unique in this AS (RFC 6286): the IPv4 address, or a hash of the IPv6 address."""
        if self.local is not None:
            return str(self.local)
        return str(IPv4Address(zlib.crc32(self.local6.packed) or 1 if self.local6 else 1))

    def local_to(self, peer: Peer) -> Address:
        """Return the own address of the peer's family; raise SetupError if there is none."""
        own = self.local if peer.address.version == 4 else self.local6
        if own is None:
            family = f"IPv{peer.address.version}"
            raise SetupError(f"BGP peer {peer.address}", f"no own {family} address for a session", "--bgp-address")
        return own


@dataclass(frozen=True)
class Neighbour:
    """The state of a session.  ``uptime_s`` is None while it is down; ``prefixes`` counts the announced ones.

    ``reason``: why the session is down, as reported by the speaker or the peer; empty if it is up or they give none.
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
    """An announced route; ``is_last_resort``: it has a longer AS path, so that routers prefer any other.

    ``prepended``: how often the own AS is prepended by command. ``is_black_hole``: it asks the neighbours to drop the
    prefix's packets.
    """

    prefix: Prefix
    is_last_resort: bool = False
    prepended: int = 0
    is_black_hole: bool = False

    @property
    def longer_by(self) -> int:
        """The number of times that the own AS is prepended to the path."""
        return self.prepended + (PREPENDED if self.is_last_resort else 0)

    @property
    def communities(self) -> tuple[tuple[int, int], ...]:
        """The communities that it has beside those of all routes."""
        return (BLACKHOLE,) if self.is_black_hole else ()


@lru_cache(maxsize=4096)
def _prefix(vip: Address) -> Prefix:
    """Return the prefix of one address."""
    return ip_network(vip)


def prefixes_of(config: Config) -> frozenset[Prefix]:
    """Return the VIPs of a configuration as prefixes."""
    return frozenset(_prefix(service.vip) for service in config.services)


def routes_of(config: Config) -> frozenset[Route]:
    """Return the routes that a mux announces; ``config`` lacks backends that are down.

    A VIP is never withdrawn because its backends are down, since this mux may be the last one to announce it.  If all
    services of a VIP have ``on_no_backend: withdraw``, its route gets a longer path: routers then use a better one if
    they have it.
    """
    serves = {service.vip for service in config.services if service.backends or service.on_no_backend != "withdraw"}
    return frozenset(Route(_prefix(service.vip), service.vip not in serves) for service in config.services)


def sorted_prefixes(prefixes: Iterable[Prefix], version: int | None = None) -> list[str]:
    """Return sorted prefixes as text, only those of IP ``version`` if given."""
    chosen = [prefix for prefix in prefixes if version in (None, prefix.version)]
    return [str(prefix) for prefix in sorted(chosen, key=lambda one: (one.version, one.network_address.packed))]
