"""Access lists: converts prefixes, of which the longest match applies, to the rows that the data path searches.

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


def access_rows(rules: Iterable[tuple[Network, bool]], default: bool) -> NDArray[Any]:
    """Return RULE rows; the first starts at address zero.

    ``rules``: prefixes, each allowed or not; ``default``: whether all other sources are allowed.
    """
    boundaries: dict[int, bool] = {0: default}
    # Mapped IPv4 addresses are within ::/0, but IPv6 prefixes must not apply to them.
    rules = [(ALL_IPV4, default), *rules]
    for start, allowed in _boundaries(rules, default):
        boundaries[start] = allowed
    boundaries.pop(BEYOND, None)
    rows, last = [], None
    for start, allowed in sorted(boundaries.items()):
        if allowed != last:
            rows.append((start >> 64, start & LOW_HALF, allowed))
            last = allowed
    return np.array(rows, RULE)


def _boundaries(rules: Iterable[tuple[Network, bool]], default: bool) -> Iterator[tuple[int, bool]]:
    """Yield (address, whether sources are allowed from there on). The last pair of an address applies."""
    spans = sorted(((*_span(network), allowed) for network, allowed in rules), key=lambda span: (span[0], -span[1]))
    enclosing: list[tuple[int, bool]] = []  # the enclosing prefixes: end, allowed
    for start, end, allowed in spans:
        while enclosing and enclosing[-1][0] <= start:
            yield enclosing.pop()[0], enclosing[-1][1] if enclosing else default
        enclosing.append((end, allowed))
        yield start, allowed
    while enclosing:
        yield enclosing.pop()[0], enclosing[-1][1] if enclosing else default


def _span(network: Network) -> tuple[int, int]:
    """Return the first address and the one after the last, as 128-bit numbers."""
    first = int(network.network_address) + (MAPPED if network.version == 4 else 0)
    return first, first + network.num_addresses
