"""Access lists: from prefixes, of which the longest that matches counts, to the rows that the data path searches.

Prefixes nest or lie apart, so one sweep over their first addresses gives the places at which "allowed" and "denied"
take turns.  IPv4 is mapped, as in all tables, so one list serves both families.
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
    """RULE rows, the first from address zero on.  ``rules``: prefixes, each allowed or not; ``otherwise`` the rest."""
    turns: dict[int, bool] = {0: otherwise}
    # IPv4 lies inside of IPv6 here, but no prefix of IPv6 speaks of it.
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
    """(address, whether sources are allowed from there on); of two for one address the later counts."""
    spans = sorted(((*_span(network), allowed) for network, allowed in rules), key=lambda span: (span[0], -span[1]))
    around: list[tuple[int, bool]] = []  # the prefixes that we are in: where they end, and what they say
    for start, end, allowed in spans:
        while around and around[-1][0] <= start:
            yield around.pop()[0], around[-1][1] if around else otherwise
        around.append((end, allowed))
        yield start, allowed
    while around:
        yield around.pop()[0], around[-1][1] if around else otherwise


def _span(network: Network) -> tuple[int, int]:
    """The first address, and the one behind the last, as 128-bit numbers."""
    first = int(network.network_address) + (MAPPED if network.version == 4 else 0)
    return first, first + network.num_addresses
