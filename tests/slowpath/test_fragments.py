"""Fragments, made by scapy, on their way through one mux."""

import random
from collections import Counter
from itertools import permutations
from typing import Any

import pytest
from scapy.layers.inet import IP, fragment
from scapy.layers.inet6 import IPv6ExtHdrFragment, fragment6
from scapy.packet import Raw

from lbmux.config.slowpath_models import Fragments as Limits
from lbmux.slowpath.fragments import Fragments
from lbmux.slowpath.slow_path_flow import Flow
from lbmux.wire.packet import Packet
from tests.slowpath.golden import CLIENT, VIP, datagram, ip, read, segment

FAMILIES = pytest.mark.parametrize("family", [4, 6])


class Case:
    """A table, and the flows that it asked a backend for: each gets its client port as its backend."""

    def __init__(self, **limits: Any) -> None:
        self.flows: list[Flow] = []
        self.backend: int | None = 3
        self.table = Fragments(Limits(**limits), self.choose, Counter())

    def choose(self, flow: Flow) -> int | None:
        self.flows.append(flow)
        return self.backend

    def arrive(self, packet: Packet, now: float = 0.0) -> list[Packet]:
        sent = self.table.arrive(packet, now)
        assert all(backend == self.backend for _, backend in sent)
        return [one for one, _ in sent]


def pieces(family: int, length_bytes: int = 4000, identification: int = 7, carried: Any = None) -> list[Packet]:
    whole = carried or datagram(length_bytes)
    if family == 4:
        return [read(part) for part in fragment(ip(4, id=identification) / whole, 1400)]
    return [read(part) for part in fragment6(ip(6) / IPv6ExtHdrFragment(id=identification) / whole, 1400)]


def from_network(network: int, identification: int = 7) -> Packet:
    """A later fragment from a /24 of its own."""
    return read(fragment(ip(4, f"10.0.{network}.1", id=identification) / datagram(4000), 1400)[1])


@FAMILIES
def test_in_order(family: int) -> None:
    case, parts = Case(), pieces(family)
    assert len(parts) >= 3
    assert [case.arrive(part) for part in parts] == [[part] for part in parts]
    assert [(flow.client_port, flow.vip_port, flow.protocol) for flow in case.flows] == [(40000, 53, 17)]


@FAMILIES
def test_fragments_in_any_order_are_forwarded_in_order_of_arrival(family: int) -> None:
    for order in permutations(pieces(family)):
        case = Case()
        sent = [one for part in order for one in case.arrive(part)]
        assert sorted(sent, key=lambda p: p.offset_bytes) == sorted(order, key=lambda p: p.offset_bytes)
        assert len(case.flows) == 1 and case.table.waiting == 0


@FAMILIES
def test_two_datagrams_at_a_time(family: int) -> None:
    case = Case()
    parts = pieces(family, identification=1) + pieces(family, identification=2)
    random.Random(1).shuffle(parts)
    assert sum(len(case.arrive(part)) for part in parts) == len(parts)
    assert len(case.flows) == 2


def test_same_identification_of_another_client_is_another_datagram() -> None:
    case = Case()
    case.arrive(pieces(4)[0])
    other = IP(src="198.51.100.8", dst=VIP, id=7, frag=172, proto=17) / Raw(bytes(64))
    assert case.arrive(read(other)) == [] and case.table.waiting == 1


def test_no_backend_drops_all_of_it() -> None:
    case = Case()
    case.backend = None
    assert [case.arrive(part) for part in pieces(4)] == [[]] * len(pieces(4))
    assert case.table.counts["fragment_no_backend"] == len(pieces(4))


def test_a_waiting_fragment_expires() -> None:
    case, (first, second, *_) = Case(buffered_s=2.0), pieces(4)
    case.arrive(second, 0.0)
    assert case.arrive(first, 2.5) == [first]
    assert case.table.counts["fragment_timeout"] == 1


def test_a_waiting_fragment_behind_an_active_datagram_expires_too() -> None:
    case, (first, second, third, *_) = Case(buffered_s=2.0), pieces(4)
    case.arrive(first, 0.0)
    case.arrive(pieces(4, identification=8)[1], 0.0)
    case.arrive(second, 1.9)
    case.arrive(third, 2.1)
    assert (case.table.waiting, case.table.counts["fragment_timeout"]) == (0, 1)


def test_a_decided_datagram_is_forgotten_after_its_idle_time() -> None:
    case, (first, second, third, *_) = Case(idle_s=15.0), pieces(4)
    case.arrive(first, 0.0)
    assert case.arrive(second, 14.0) == [second]
    assert case.arrive(third, 30.0) == []
    assert case.table.waiting == 1


def test_the_buffer_is_bounded() -> None:
    case = Case(buffered=5)
    for network in range(10):
        case.arrive(from_network(network))
    assert (case.table.waiting, case.table.counts["fragment_no_buffer"]) == (5, 5)


def test_one_prefix_fills_half_of_the_buffer_and_leaves_the_rest_to_others() -> None:
    case = Case(buffered=100, buffered_s=2.0)
    for identification in range(1000):
        case.arrive(from_network(1, identification))
    assert case.table.waiting == 50
    for identification in range(10):
        case.arrive(from_network(2, identification))
    assert (case.table.waiting, case.table.counts["fragment_no_buffer"]) == (60, 950)
    case.table.expire(5.0)
    for identification in range(1000):
        case.arrive(from_network(1, identification), 5.0)
    assert case.table.waiting == 50


def test_the_table_is_bounded_and_the_oldest_goes() -> None:
    case = Case(datagrams=16)
    for identification in range(40):
        case.arrive(pieces(4, identification=identification)[0])
    assert len(case.table) == 16
    assert case.arrive(pieces(4, identification=39)[1]) != []
    assert case.arrive(pieces(4, identification=0)[1]) == []


def test_tiny_first_fragment_of_tcp() -> None:
    case = Case()
    tiny = IP(src=CLIENT, dst=VIP, id=1, flags="MF", proto=6) / Raw(bytes(segment())[:16])
    assert case.arrive(read(tiny)) == []
    tiny6 = ip(6) / IPv6ExtHdrFragment(id=1, m=1, nh=6) / Raw(bytes(segment())[:16])
    assert case.arrive(read(tiny6)) == []
    assert case.table.counts == {"fragment_tiny": 2} and case.flows == []


def test_tcp_fragment_over_the_flags() -> None:
    case = Case()
    assert case.arrive(read(IP(src=CLIENT, dst=VIP, id=1, frag=1, proto=6) / Raw(bytes(40)))) == []
    assert case.table.counts == {"fragment_tiny": 1}


@FAMILIES
def test_overlap_spoils_the_datagram(family: int) -> None:
    case, (first, second, third, *_) = Case(), pieces(family)
    if family == 4:
        over = IP(src=CLIENT, dst=VIP, id=7, flags="MF", frag=second.offset_bytes // 8 - 1, proto=17) / Raw(bytes(64))
    else:
        place = second.offset_bytes // 8 - 1
        over = ip(6) / IPv6ExtHdrFragment(id=7, m=1, offset=place, nh=17) / Raw(bytes(64))
    assert case.arrive(first) == [first]
    assert case.arrive(read(over)) == []
    assert case.arrive(third) == []
    assert case.table.counts["fragment_overlap"] == 2


def test_overlap_spoils_what_waits() -> None:
    case, (first, second, *_) = Case(), pieces(4)
    case.arrive(second)
    case.arrive(read(IP(src=CLIENT, dst=VIP, id=7, flags="MF", frag=173, proto=17) / Raw(bytes(64))))
    assert case.table.waiting == 0
    assert case.arrive(first) == []


def test_a_duplicate_is_ignored() -> None:
    case, (first, second, *_) = Case(), pieces(4)
    case.arrive(first)
    assert case.arrive(second) == [second]
    assert case.arrive(second) == []
    assert case.table.counts["fragment_duplicate"] == 1


def test_beyond_the_largest_datagram() -> None:
    case = Case()
    assert case.arrive(read(IP(src=CLIENT, dst=VIP, id=1, frag=8191, proto=17) / Raw(bytes(64)))) == []
    assert case.table.counts == {"fragment_malformed": 1}


def test_a_middle_fragment_of_an_odd_length() -> None:
    case = Case()
    assert case.arrive(read(IP(src=CLIENT, dst=VIP, id=1, flags="MF", frag=10, proto=17) / Raw(bytes(63)))) == []
    assert case.table.counts == {"fragment_malformed": 1}


def test_another_protocol() -> None:
    case = Case()
    assert case.arrive(read(IP(src=CLIENT, dst=VIP, id=1, flags="MF", proto=47) / Raw(bytes(64)))) == []
    assert case.table.counts == {"fragment_protocol": 1}
