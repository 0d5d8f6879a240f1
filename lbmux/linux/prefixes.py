"""Prefix matching of addresses, so that a changed route affects only the destinations within its prefix."""

from collections.abc import Iterable
from typing import NamedTuple

from lbmux.addresses import Address


class Prefix(NamedTuple):
    """``bits`` are the ``length`` leading bits of the network's address."""

    version: int
    length: int
    bits: int


EVERYTHING = frozenset({Prefix(4, 0, 0), Prefix(6, 0, 0)})


def prefix(network: Address, length: int) -> Prefix:
    return Prefix(network.version, length, int(network) >> (network.max_prefixlen - length))


def within(destinations: Iterable[Address], prefixes: Iterable[Prefix]) -> list[Address]:
    """Return the destinations in any of the prefixes, in order. The cost grows with the number of prefix lengths."""
    wanted = set(prefixes)
    lengths = {version: sorted({p.length for p in wanted if p.version == version}) for version in (4, 6)}
    return [d for d in destinations if any(prefix(d, length) in wanted for length in lengths[d.version])]
