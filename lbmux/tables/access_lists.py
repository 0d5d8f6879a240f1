"""Access lists: turns prefixes, of which the longest match wins, into the rows that the data path searches.

Two prefixes are either nested or disjoint, so one sweep over their first addresses finds where "allowed" and "denied"
alternate.  IPv4 addresses are mapped to IPv6, as in all tables, so one list serves both families.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.datapath.tables import RULE

Network = IPv4Network | IPv6Network
ALL_IPV4 = IPv4Network("0.0.0.0/0")
MAPPED = 0xFFFF << 32
LOW_HALF = (1 << 64) - 1
BEYOND = 1 << 128


def access_rows(rules: Iterable[tuple[Network, bool]], otherwise: bool) -> NDArray[Any]:
    """Return RULE rows; the first starts at address zero.

    ``rules``: prefixes, each allowed or not; ``otherwise``: whether all other sources are allowed.
    """
    turns: dict[int, bool] = {0: otherwise}
    # Mapped IPv4 addresses are within ::/0, but IPv6 prefixes must not apply to them.
    rules = [(ALL_IPV4, otherwise), *rules]
    for start, allowed in _turns(rules, otherwise):
        turns[start] = allowed
    turns.pop(BEYOND, None)
    rows, last = [], None
    for start, allowed in sorted(turns.items()):
        if allowed != last:
            rows.append((start >> 64, start & LOW_HALF, allowed))
            last = allowed
    return np.array(rows, RULE)


def _turns(rules: Iterable[tuple[Network, bool]], otherwise: bool) -> Iterator[tuple[int, bool]]:
    """Yield (address, whether sources are allowed from there on); the last pair of an address wins."""
    spans = sorted(((*_span(network), allowed) for network, allowed in rules), key=lambda span: (span[0], -span[1]))
    around: list[tuple[int, bool]] = []  # the enclosing prefixes: end, allowed
    for start, end, allowed in spans:
        while around and around[-1][0] <= start:
            yield around.pop()[0], around[-1][1] if around else otherwise
        around.append((end, allowed))
        yield start, allowed
    while around:
        yield around.pop()[0], around[-1][1] if around else otherwise


def _span(network: Network) -> tuple[int, int]:
    """Return the first address and the one after the last, as 128-bit numbers."""
    first = int(network.network_address) + (MAPPED if network.version == 4 else 0)
    return first, first + network.num_addresses
