"""What a mux says to its routers by BGP, as data: peers, attributes, timers.  Pure.

A mux announces the addresses of its services, each as a /32 or /128, with itself as the next hop (RFC 4760).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any

from lbmux.control.config import Config

Prefix = IPv4Network | IPv6Network

DEFAULT_AS, DEFAULT_PEER_AS = 65001, 64512
LARGEST_AS = 2**32 - 1


@dataclass(frozen=True)
class Peer:
    """A router."""

    address: IPv4Address
    number: int = DEFAULT_PEER_AS

    @classmethod
    def parse(cls, text: str) -> "Peer":
        """``ADDR`` or ``ADDR:AS``; ValueError for anything else."""
        address, colon, number = text.partition(":")
        try:
            peer = cls(IPv4Address(address), int(number) if colon else DEFAULT_PEER_AS)
        except (AddressValueError, ValueError):
            raise ValueError(f"{text!r} is not ADDRESS or ADDRESS:AS") from None
        if not 0 < peer.number <= LARGEST_AS:
            raise ValueError(f"{text!r}: an AS number is 1 to {LARGEST_AS}")
        return peer


def parse_community(text: str) -> tuple[int, int]:
    """``AS:VALUE``, 16 bits each (RFC 1997); ValueError for anything else."""
    high, _, low = text.partition(":")
    if not (high.isdecimal() and low.isdecimal() and int(high) < 65536 and int(low) < 65536):
        raise ValueError(f"{text!r} is not AS:VALUE, each up to 65535")
    return int(high), int(low)


@dataclass(frozen=True)
class Bgp:
    """One mux's side of its sessions.  ``local``: its address in them, and the next hop that it announces; ``local6``:
    that of IPv6 prefixes, which are not announced without one."""

    local: IPv4Address
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
    withdraw_without_backends: bool = False


@dataclass(frozen=True)
class Neighbour:
    """A session as it is.  ``uptime_s`` is None while it is not up; ``prefixes`` counts what it was told."""

    address: str
    number: int
    state: str
    uptime_s: float | None = None
    prefixes: int = 0
    bfd: str = ""


def prefixes_of(config: Config, only_served: bool = False) -> frozenset[Prefix]:
    """What a mux with this configuration announces; ``only_served``: not the VIPs that have no backend at all."""
    return frozenset(ip_network(service.vip) for service in config.services if service.backends or not only_served)


def in_order(prefixes: Iterable[Prefix], version: int | None = None) -> list[str]:
    """As text; of one family where ``version`` says so."""
    chosen = [prefix for prefix in prefixes if version in (None, prefix.version)]
    return [str(prefix) for prefix in sorted(chosen, key=lambda one: (one.version, one.network_address.packed))]


def describe(speaker: str, prefixes: Iterable[Prefix], neighbours: Iterable[Neighbour]) -> dict[str, Any]:
    """As the control socket answers."""
    return {
        "version": 1,
        "speaker": speaker,
        "prefixes": in_order(prefixes),
        "neighbours": [vars(neighbour) for neighbour in neighbours],
    }
