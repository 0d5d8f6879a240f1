"""A mux's slow path as a whole: packets that hosts give back, since they have no such connection."""

from ipaddress import ip_address
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import (
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from lbmux.slowpath.flow import Flow
from lbmux.slowpath.mux import BY_ROUTE
from tests.slowpath.case import FAMILIES, Case
from tests.slowpath.golden import CLIENT, CLIENT6, ETHER, MUX, MUX6, VIP, ip

FLOW = Flow(6, ip_address(CLIENT), 40000, ip_address(VIP), 80)


def returned(family: int, host: str, flags: str = "A") -> Any:
    """A packet in mid-connection as a host gives it back."""
    inner = ip(family) / TCP(sport=40000, dport=80, flags=flags, seq=7, ack=9) / Raw(b"hello")
    return (IP(src=host, dst=MUX) if "." in host else IPv6(src=host, dst=MUX6)) / inner


@FAMILIES
def test_a_connection_is_looked_for_host_by_host_and_then_reset(family: int) -> None:
    case, packet = Case(), ip(family) / TCP(sport=40000, dport=80, flags="A")
    asked = [case.host_of(packet)]
    for _ in range(3):
        ((host, outer),) = case.tunnelled(returned(family, asked[-1]))
        assert host not in asked and bytes(outer[TCP].payload) == b"hello"
        asked.append(host)
        assert case.host_of(packet) == host  # later packets go there at once
    (sent,) = case.arrive(returned(family, asked[-1]))
    assert sent.interface == BY_ROUTE
    answer = (IP if family == 4 else IPv6)(sent.data)
    assert (answer.dst, answer[TCP].flags, answer[TCP].seq) == (CLIENT if family == 4 else CLIENT6, "R", 9)
    assert case.slow.counts == {"returned_forwarded": 3, "returned_reset": 1}


def test_a_segment_that_a_client_sends_again_while_it_is_looked_for_does_not_make_the_round_twice() -> None:
    case, packet = Case(), ip(4) / TCP(sport=40000, dport=80, flags="A")
    first = case.host_of(packet)
    ((second, _),) = case.tunnelled(returned(4, first))
    assert case.arrive(returned(4, first)) == [] and case.slow.counts["returned_copy"] == 1
    assert case.tunnelled(returned(4, second))[0][0] not in (first, second)
    assert case.arrive(returned(4, second)) == [] and case.slow.counts["returned_copy"] == 2


def test_a_connection_that_was_reset_is_no_flow_any_more() -> None:
    """A new one from the client's same port goes where the table says, as on every other mux."""
    case, packet = Case(), ip(4) / TCP(sport=40000, dport=80, flags="A")
    first = case.host_of(packet)
    asked = [first]
    for _ in range(3):
        asked.append(case.tunnelled(returned(4, asked[-1]))[0][0])
    assert case.host_of(packet) == asked[-1] != first
    case.arrive(returned(4, asked[-1]))
    assert case.slow.counts["returned_reset"] == 1 and case.host_of(packet) == first


def test_a_reset_that_nobody_knows_is_not_answered() -> None:
    case = Case()
    for host in range(1, 5):
        sent = case.arrive(returned(4, f"10.1.0.{host}", "R"))
    assert sent == [] and case.slow.counts["returned_not_answered"] == 1


def test_only_hosts_give_packets_back() -> None:
    case = Case()
    assert case.arrive(returned(4, "10.1.0.77")) == [] and not case.slow.counts


def test_what_is_no_connection_of_a_vip_is_dropped() -> None:
    case = Case()
    assert case.arrive(IP(src="10.1.0.1", dst=MUX) / IP(src=CLIENT, dst="203.0.113.9") / TCP()) == []
    assert case.arrive(IP(src="10.1.0.1", dst=MUX) / IP(src=CLIENT, dst=VIP) / ICMP()) == []
    assert case.slow.counts == {"returned_unusable": 2}


def test_a_flow_is_given_to_another_backend_in_every_worker_s_part() -> None:
    case, packet = Case(), bytes(Ether(**ETHER) / ip(4) / TCP(sport=40000, dport=80, flags="S"))
    was = {case.mux.forward(packet, by=worker)[0][1] for worker in (0, 1)}
    ((host, _),) = case.tunnelled(returned(4, case.host_of(ip(4) / TCP(sport=40000, dport=80, flags="A"))))
    now = {case.mux.forward(packet, by=worker)[0][1] for worker in (0, 1)}
    assert len(was) == len(now) == 1 and was != now
    assert case.mux.forwarder.host(now.pop()) == ip_address(host)


def test_a_connection_is_looked_for_at_as_many_hosts_as_the_setting_says_and_then_reset() -> None:
    case, packet = Case(hosts_asked=3), ip(4) / TCP(sport=40000, dport=80, flags="A")
    asked = [case.host_of(packet)]
    for _ in range(2):
        ((host, _),) = case.tunnelled(returned(4, asked[-1]))
        asked.append(host)
    (sent,) = case.arrive(returned(4, asked[-1]))
    assert len(set(asked)) == 3 and IP(sent.data)[TCP].flags == "R"
    assert case.slow.counts == {"returned_forwarded": 2, "returned_reset": 1}


def test_a_host_that_may_not_be_asked_does_not_begin_the_search_anew() -> None:
    """It had the flow by an entry from before; the likeliest are asked all the same."""
    case, packet = Case(hosts_asked=2), ip(4) / TCP(sport=40000, dport=80, flags="A")
    likely = [str(case.mux.forwarder.host(one)) for one in case.mux.forwarder.candidates(FLOW, 9)]
    case.host_of(packet)
    assert [case.tunnelled(returned(4, likely[3]))[0][0], case.tunnelled(returned(4, likely[0]))[0][0]] == likely[:2]
    (sent,) = case.arrive(returned(4, likely[1]))
    assert IP(sent.data)[TCP].flags == "R"


def test_each_of_many_backends_is_asked() -> None:
    backends = [{"name": f"b{n}", "dip": f"10.1.0.{n}"} for n in range(1, 25)]
    web = {"name": "web", "vip": VIP, "protocol": "tcp", "port": 80, "backends": backends}
    case, packet = Case(services=[web]), ip(4) / TCP(sport=40000, dport=80, flags="A")
    asked = [case.host_of(packet)]
    for _ in range(23):
        ((host, _),) = case.tunnelled(returned(4, asked[-1]))
        asked.append(host)
    assert set(asked) == {backend["dip"] for backend in backends}
    (sent,) = case.arrive(returned(4, asked[-1]))
    assert IP(sent.data)[TCP].flags == "R" and case.slow.counts == {"returned_forwarded": 23, "returned_reset": 1}
