"""Which mux has a datagram's fragments."""

from collections import Counter
from dataclasses import replace
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, fragment
from scapy.layers.inet6 import IPv6

from lbmux.slowpath.fragment_owner import is_from_mux, owner_of, sharing, to_mux
from tests.slowpath.golden import datagram, dissect, ip, read

MUXES = [ip_address(f"10.0.0.{at}") for at in (9, 5, 7)]
WIDE = [ip_address(f"fd00::{at}") for at in (9, 5, 7)]


def test_all_muxes_name_the_same_one_for_all_fragments_of_a_datagram() -> None:
    parts = [read(part) for part in fragment(ip(4, id=77) / datagram(5000), 1400)]
    orders = [sharing(set(MUXES + WIDE), {own, wide}) for own, wide in zip(MUXES, WIDE, strict=True)]
    assert orders[0] == orders[1] == orders[2] == sorted(MUXES)
    assert len({owner_of(part, orders[0]) for part in parts}) == 1


def test_datagrams_spread_over_the_muxes() -> None:
    first = read(ip(4, flags="MF") / datagram(64))
    parts = [replace(first, identification=number) for number in range(3000)]
    shares = Counter(owner_of(part, sharing(MUXES, MUXES[:1])) for part in parts)
    assert all(900 < share < 1100 for share in shares.values())


def test_an_unlisted_mux_shares_no_fragments() -> None:
    assert sharing(MUXES, [ip_address("10.0.0.1")]) == []
    assert sharing([], MUXES) == []


@pytest.mark.parametrize("family", [4, 6])
def test_sent_in_ip_in_ip_and_known_again(family: int) -> None:
    part = read(ip(family) / datagram(64))
    outer = read(dissect(to_mux(part, MUXES[0], MUXES[1])))
    assert outer.payload == part.data and is_from_mux(outer, frozenset(MUXES))
    assert not is_from_mux(outer, frozenset(MUXES[1:]))
    kind = IP if family == 4 else IPv6
    assert kind(outer.payload).dst == str(part.destination)
