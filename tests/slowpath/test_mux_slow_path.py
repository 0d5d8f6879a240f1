"""A mux's slow path as a whole: frames in, frames out, over the real data path's tables."""

from ipaddress import ip_address
from itertools import count

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, defragment, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6ExtHdrFragment,
    fragment6,
)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from lbmux.datapath.verdicts import Verdict
from lbmux.slowpath.mux_output import BY_ROUTE
from tests.slowpath.case import FAMILIES, Case
from tests.slowpath.golden import CLIENT, CLIENT6, ETHER, MUX, VIP, VIP6, back, datagram, ip, segment
from tests.slowpath.tables import INTERFACE

OTHER_MUX = "10.0.0.6"


def test_ping() -> None:
    case = Case()
    reply = case.answer(ip(4) / ICMP(id=1, seq=2) / Raw(b"x" * 56))
    assert (reply.src, reply.dst, reply[ICMP].type) == (VIP, CLIENT, 0)
    assert case.slow.counts == {"echo_answered": 1}


def test_ping_of_ipv6() -> None:
    reply = Case().answer(ip(6) / ICMPv6EchoRequest(data=b"x" * 56))
    assert (reply.src, reply.dst) == (VIP6, CLIENT6) and ICMPv6EchoReply in reply


def test_ping_in_a_vlan_is_answered_there() -> None:
    case = Case()
    (sent,) = case.arrive(Ether(**ETHER) / Dot1Q(vlan=7) / ip(4) / ICMP())
    assert Ether(sent.data)[Dot1Q].vlan == 7


def test_ping_while_no_backend_takes_flows() -> None:
    case = Case()
    case.up = False
    assert case.arrive(ip(4) / ICMP()) == [] and case.slow.counts == {"echo_dropped": 1}


def test_ping_dropped_by_setting() -> None:
    case = Case(echo="drop")
    assert case.arrive(ip(4) / ICMP()) == [] and case.slow.counts == {"echo_dropped": 1}


@FAMILIES
def test_ping_forwarded_by_setting_always_to_the_same_backend(family: int) -> None:
    case = Case(echo="forward")
    request = ip(family) / (ICMP(id=5) if family == 4 else ICMPv6EchoRequest(id=5))
    hosts = {host for _ in range(5) for host, _ in case.tunnelled(request)}
    assert len(hosts) == 1


def test_a_ping_of_another_address_is_ignored() -> None:
    case = Case()
    assert case.arrive(ip(4, destination="203.0.113.99") / ICMP()) == []
    assert case.arrive(ip(4, destination=MUX) / ICMP()) == []
    assert case.verdict == Verdict.ICMP and not case.slow.counts


def test_pings_are_limited() -> None:
    case = Case(icmp_per_s=100)
    assert sum(len(case.arrive(ip(4) / ICMP(seq=at))) for at in range(50)) == 10
    assert case.slow.counts["over_icmp_per_s"] == 40


@pytest.mark.parametrize("budget", ["icmp_per_s", "packets_per_s"])
def test_a_client_with_100_times_the_budget_leaves_another_its_part(budget: str) -> None:
    case = Case(**{budget: 100})
    answered = 0
    for at in range(2000):  # a fifth of a second
        case.now = at / 10_000
        case.arrive(ip(4) / ICMP(seq=at))
        if at % 200 == 199:  # 50 a second: half of the budget
            answered += len(case.arrive(ip(4, "192.0.2.99") / ICMP(seq=at)))
    assert answered >= 9
    assert case.slow.counts["over_source_share"] > 0


def test_the_slow_path_has_a_budget_of_cpu_time_that_clients_share() -> None:
    case, clock, answered = Case(cpu=0.5), count(0, 1 / 256), 0
    case.slow.cpu_s = lambda: next(clock)  # each packet takes 4 ms: the half of half a core is 64 a second
    for at in range(1000):
        case.now = at / 1000
        case.arrive(ip(4) / ICMP(seq=at))
        if at % 20 == 19:  # 50 a second
            answered += len(case.arrive(ip(4, "192.0.2.99") / ICMP(seq=at)))
    assert answered >= 45 and case.slow.counts["over_source_share"] > 0
    assert 800 < case.slow.counts["over_cpu"] < 950


def test_while_other_packets_wait_it_drops_all_but_what_hosts_return() -> None:
    case = Case()
    first = case.host_of(ip(4) / TCP(sport=40000, dport=80, flags="A"))
    case.slow.is_behind = lambda: True
    assert not case.arrive(ip(4) / ICMP(seq=1))
    assert len(case.arrive(IP(src=first, dst=MUX, ttl=61) / ip(4) / TCP(sport=40000, dport=80, flags="A"))) == 1
    case.slow.is_behind = lambda: False
    assert len(case.arrive(ip(4) / ICMP(seq=2))) == 1
    assert case.slow.counts == {"loop_behind": 1, "echo_answered": 1, "returned_forwarded": 1}


def test_no_icmp_at_all_by_setting() -> None:
    case = Case(icmp_per_s=0)
    assert case.arrive(ip(4) / ICMP()) == []


def test_the_number_of_examined_frames_is_limited() -> None:
    case = Case(packets_per_s=100, icmp_per_s=1000)
    assert sum(len(case.arrive(ip(4) / ICMP(seq=at))) for at in range(50)) == 10
    assert case.slow.counts["over_packets_per_s"] == 40


@FAMILIES
def test_too_big_with_df(family: int) -> None:
    case = Case()
    inner_mtu = 1480 if family == 4 else 1460
    size = 1500 - (40 if family == 4 else 60)
    packet = ip(4, flags="DF") / segment(size) if family == 4 else ip(6) / segment(size)
    error = case.answer(packet)
    assert case.verdict == Verdict.TOO_BIG
    if family == 4:
        assert (error[ICMP].type, error[ICMP].code, error[ICMP].nexthopmtu, error.src) == (3, 4, inner_mtu, VIP)
    else:
        assert (error[ICMPv6PacketTooBig].mtu, error.src) == (inner_mtu, VIP6)
    fits = ip(4, flags="DF") / segment(inner_mtu - 40) if family == 4 else ip(6) / segment(inner_mtu - 60)
    case.arrive(fits)
    assert case.verdict == Verdict.FORWARDED


def test_too_big_without_df_goes_in_fragments_of_the_outer_packet() -> None:
    case = Case()
    packet = ip(4, id=9) / segment(1460)
    hosts, outer = zip(*case.tunnelled(packet), strict=True)
    assert len(set(hosts)) == 1 and len(outer) == 2
    (whole,) = defragment(list(outer))
    inner = IP(bytes(whole.payload))
    assert (inner.src, inner.dst, inner.ttl, bytes(inner[TCP])) == (CLIENT, VIP, 63, bytes(packet[TCP]))
    assert case.slow.counts == {"too_big_fragmented": 1}


def test_too_big_without_df_dropped_by_setting() -> None:
    case = Case(too_big="drop")
    assert case.arrive(ip(4) / segment(1460)) == [] and case.slow.counts == {"too_big_dropped": 1}


@FAMILIES
def test_hops_run_out(family: int) -> None:
    case = Case()
    error = case.answer(ip(4, ttl=1) / segment() if family == 4 else ip(6, hlim=1) / segment())
    assert case.verdict == Verdict.TTL
    if family == 4:
        assert (error[ICMP].type, error[ICMP].code, error.src) == (11, 0, VIP)
    else:
        assert ICMPv6TimeExceeded in error


@FAMILIES
@pytest.mark.parametrize("quote_bytes", [8, 200])
def test_icmp_error_goes_to_the_backend_that_has_the_flow(family: int, quote_bytes: int) -> None:
    case = Case()
    for port in range(40000, 40020):
        host = case.host_of(ip(family) / TCP(sport=port, dport=80))
        quote = bytes(back(family) / TCP(sport=80, dport=port) / Raw(bytes(400)))
        quote = quote[: (20 if family == 4 else 40) + quote_bytes]
        if family == 4:
            error = ip(4, "192.0.2.1") / ICMP(type=3, code=4, nexthopmtu=1400) / Raw(quote)
        else:
            error = ip(6, "2001:db8:a::1") / ICMPv6PacketTooBig(mtu=1400) / Raw(quote)
        ((tunnelled_to, outer),) = case.tunnelled(error)
        assert tunnelled_to == host
        assert bytes(outer.payload.payload) == bytes(error.payload)


def test_icmp_error_about_no_service() -> None:
    case = Case()
    quote = bytes(back(4) / TCP(sport=81, dport=40000))
    assert case.arrive(ip(4, "192.0.2.1") / ICMP(type=3, code=4) / Raw(quote)) == []
    assert case.slow.counts == {"icmp_no_flow": 1}


@FAMILIES
def test_fragments_go_where_the_flow_goes(family: int) -> None:
    for reverse in (False, True):
        case = Case()
        if family == 4:
            parts = fragment(ip(4, id=3) / datagram(4000), 1400)
        else:
            parts = fragment6(ip(6) / IPv6ExtHdrFragment(id=3) / datagram(4000), 1400)
        sent = [one for part in (parts[::-1] if reverse else parts) for one in case.tunnelled(part)]
        assert {host for host, _ in sent} == {case.host_of(ip(family) / UDP(sport=40000, dport=53))}
        assert len(sent) == len(parts)


def test_a_9000_byte_datagram_end_to_end() -> None:
    case, packet = Case(), ip(4, id=3) / datagram(9000)  # six full fragments, and one that fits
    outer = [one for part in fragment(packet, 1480) for _, one in case.tunnelled(part)]
    assert len(outer) == 13 and all(len(one) <= 1500 for one in outer)
    inner = [IP(bytes(one.payload)) for one in defragment(outer)]
    (whole,) = defragment(inner)
    assert bytes(whole[UDP]) == bytes(packet[UDP])


def test_a_fragment_too_big_in_ipv6_gets_packet_too_big() -> None:
    case = Case()
    first, *_ = fragment6(ip(6) / IPv6ExtHdrFragment(id=3) / datagram(4000), 1500)
    assert case.answer(first)[ICMPv6PacketTooBig].mtu == 1460


def two_muxes() -> tuple[Case, Case]:
    ours, theirs = Case(muxes=(MUX, OTHER_MUX)), Case(muxes=(MUX, OTHER_MUX))
    theirs.slow.own = frozenset({ip_address(OTHER_MUX)})
    theirs.slow.configure(theirs.slow.context)
    return ours, theirs


def test_fragments_that_arrive_at_two_muxes_leave_from_one() -> None:
    """Each of them sends the other what is the other's, once, and that one what it got."""
    ours, theirs = two_muxes()
    for number in range(20):
        parts = fragment(ip(4, id=number) / datagram(4000), 1400)
        forwarded: dict[int, list[str]] = {0: [], 1: []}
        for turn, part in enumerate(parts):
            at = turn % 2
            for sent in (ours, theirs)[at].arrive(part):
                if sent.interface == BY_ROUTE:
                    assert IP(sent.data).dst == (OTHER_MUX if at == 0 else MUX)
                    onward = (theirs, ours)[at].arrive(IP(sent.data))
                    assert all(one.interface == INTERFACE for one in onward)
                    forwarded[1 - at] += [Ether(one.data).payload.dst for one in onward]
                else:
                    forwarded[at].append(Ether(sent.data).payload.dst)
        assert sorted(map(len, forwarded.values())) == [0, len(parts)]
        assert len(set(forwarded[0] + forwarded[1])) == 1


def test_a_fragment_from_another_mux_never_goes_to_a_third() -> None:
    ours, theirs = two_muxes()
    sent = [one for number in range(20) for one in ours.arrive(fragment(ip(4, id=number) / datagram(4000), 1400)[0])]
    passed = [one for one in sent if one.interface == BY_ROUTE]
    assert passed
    theirs.slow.own = frozenset({ip_address(OTHER_MUX)})
    theirs.slow.sharing_muxes = [ip_address(MUX)]  # a mux that takes every address for its own
    for one in passed:
        assert [onward.interface for onward in theirs.arrive(IP(one.data))] == [INTERFACE]


def test_ip_in_ip_from_another_address_passes() -> None:
    case = Case(muxes=(MUX, OTHER_MUX))
    part = fragment(ip(4, id=1) / datagram(4000), 1400)[0]
    assert case.arrive(IP(src="10.0.0.66", dst=MUX) / part) == [] and not case.slow.counts


def test_a_whole_packet_from_a_mux_is_not_forwarded() -> None:
    case = Case(muxes=(MUX, OTHER_MUX))
    assert case.arrive(IP(src=OTHER_MUX, dst=MUX) / ip(4) / datagram(64)) == []
    assert case.slow.counts == {"from_mux_unusable": 1}
