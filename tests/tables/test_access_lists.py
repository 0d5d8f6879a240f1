"""Access lists against the plain rule: of the prefixes that match, the longest says it."""

import random
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbmux.datapath.tables import MOST_RULES
from lbmux.tables.access_lists import Network, access_rows


def number(address: IPv4Address | IPv6Address) -> int:
    return int(address) | (0xFFFF << 32 if address.version == 4 else 0)


def looked_up(rows: np.ndarray, address: IPv4Address | IPv6Address) -> bool:
    starts = [int(row["high"]) << 64 | int(row["low"]) for row in rows]
    assert starts == sorted(starts) and starts[0] == 0
    last = max(at for at, start in enumerate(starts) if start <= number(address))
    return bool(rows[last]["allowed"])


def plainly(rules: list[tuple[Network, bool]], otherwise: bool, address: IPv4Address | IPv6Address) -> bool:
    matching = [(network.prefixlen, allowed) for network, allowed in rules if address in network]
    return max(matching)[1] if matching else otherwise


networks = st.one_of(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(lambda p: ip_network((p[0], p[1]), strict=False)),
    st.tuples(st.integers(0, 2**128 - 1), st.integers(1, 128)).map(lambda p: IPv6Network(p, strict=False)),
)


@given(st.dictionaries(networks, st.booleans(), max_size=12), st.booleans(), st.integers(0, 2**32 - 1))
def test_the_longest_prefix_counts(rules: dict[Network, bool], otherwise: bool, some: int) -> None:
    rows = access_rows(rules.items(), otherwise)
    edges = [ip_address(some)]
    for network in rules:
        edges += [network.network_address, network.broadcast_address]
        for beside in (int(network.network_address) - 1, int(network.broadcast_address) + 1):
            if 0 <= beside < 2**network.max_prefixlen:
                edges.append(type(network.network_address)(beside))
    for address in edges:
        if address.version == 6 and address.ipv4_mapped:  # type: ignore[union-attr]
            continue
        assert looked_up(rows, address) == plainly(list(rules.items()), otherwise, address)


def test_an_empty_access_list_is_one_row() -> None:
    assert [tuple(row) for row in access_rows([], True)] == [(0, 0, 1)]


@pytest.mark.slow
def test_a_hundred_thousand_prefixes_fit_the_look_up() -> None:
    pick = random.Random(3)
    rules = {
        IPv4Network((pick.getrandbits(24) << 8, pick.randint(24, 28))): pick.random() < 0.5 for _ in range(100_000)
    }
    rows = access_rows(rules.items(), True)
    assert 50_000 < len(rows) < MOST_RULES
