"""Which addresses lie within prefixes: so that a route that changes costs only the destinations it can concern."""

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
    """Those that lie in any of the prefixes, in their order; the cost grows with the lengths there are."""
    wanted = set(prefixes)
    lengths = {version: sorted({p.length for p in wanted if p.version == version}) for version in (4, 6)}
    return [d for d in destinations if any(prefix(d, length) in wanted for length in lengths[d.version])]
