"""A mux's slow path as a whole: packets that hosts return because they do not have the connection."""

from ipaddress import ip_address
from itertools import count
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from lbmux.config.models import Config
from lbmux.datapath.verdicts import Verdict
from lbmux.slowpath.forwarder import SEARCH_TICKS
from lbmux.slowpath.mux_output import BY_ROUTE
from lbmux.slowpath.slow_path_flow import Flow
from tests.slowpath.case import FAMILIES, Case
from tests.slowpath.golden import CLIENT, CLIENT6, ETHER, MUX, MUX6, VIP, back, ip

FLOW = Flow(6, ip_address(CLIENT), 40000, ip_address(VIP), 80)


def returned(family: int, host: str, flags: str = "A", outer: Any = None, **fields: Any) -> Any:
    """A packet in mid-connection as a host gives it back: ``outer`` is what came there, a first packet unless said."""
    inner = ip(family, **fields) / TCP(sport=40000, dport=80, flags=flags, seq=7, ack=9) / Raw(b"hello")
    hops = 64 if outer is None else outer.ttl if isinstance(outer, IP) else outer.hlim
    if "." in host:
        return IP(src=host, dst=MUX, ttl=hops - 3) / inner
    return IPv6(src=host, dst=MUX6, hlim=hops - 3) / inner


def search(case: Case, family: int, first: str) -> list[str]:
    """The hosts that are asked, from one that refuses the first packet on, until there is an answer for the client."""
    asked, outer = [first], None
    while True:
        sent = case.arrive(returned(family, asked[-1], outer=outer))
        if not sent or sent[0].interface == BY_ROUTE:
            return asked
        ((host, outer),) = [(Ether(one.data).payload.dst, Ether(one.data).payload) for one in sent]
        asked.append(host)


@FAMILIES
def test_a_connection_is_searched_host_by_host_then_reset(family: int) -> None:
    case, packet = Case(), ip(family) / TCP(sport=40000, dport=80, flags="A")
    asked, outer = [case.host_of(packet)], None
    for _ in range(3):
        ((host, outer),) = case.tunnelled(returned(family, asked[-1], outer=outer))
        assert host not in asked and bytes(outer[TCP].payload) == b"hello"
        asked.append(host)
        assert case.host_of(packet) == host  # later packets go there at once
    (sent,) = case.arrive(returned(family, asked[-1], outer=outer))
    assert sent.interface == BY_ROUTE
    answer = (IP if family == 4 else IPv6)(sent.data)
    assert (answer.dst, answer[TCP].flags, answer[TCP].seq) == (CLIENT if family == 4 else CLIENT6, "R", 9)
    assert case.slow.counts == {"returned_forwarded": 3, "returned_reset": 1}


@pytest.mark.slow
@FAMILIES
def test_however_many_flows_go_round_each_search_ends(family: int) -> None:
    """More than any table could remember: the state of each is in its packets."""
    case, rounds, flows = Case(packets_per_s=1_000_000), 0, 1500
    first = case.host_of(ip(family) / TCP(sport=1, dport=80, flags="A"))
    frame, addresses, port_at = bytes(Ether(**ETHER) / returned(family, first)), 26, 54
    size = 4
    if family == 6:
        addresses, port_at, size = 22, 94, 16
    going = [frame[:port_at] + port.to_bytes(2, "big") + frame[port_at + 2 :] for port in range(1, flows + 1)]
    while going:
        rounds, case.now = rounds + 1, case.now + 1.0
        sent = [one for frame in going for one in case.slow.handle(Verdict.PROTOCOL, frame, -1, case.now)]
        going = []
        for frame in (one.data for one in sent if one.interface != BY_ROUTE):
            ends = frame[addresses + size : addresses + 2 * size] + frame[addresses : addresses + size]
            going.append(frame[:addresses] + ends + frame[addresses + 2 * size :])
    assert rounds == 5 and case.slow.counts["returned_reset"] == flows


def test_a_search_that_the_table_changes_under_ends_and_asks_each_host() -> None:
    """The backend of the flow's slot is drained and added again, between any two rounds."""
    for change in range(4):
        case = Case()
        config, host, outer = case.mux.config, case.host_of(ip(4) / TCP(sport=40000, dport=80, flags="A")), None
        asked = [host]
        while True:
            if len(asked) - 1 == change:
                reweight(case, asked[0], config)
            sent = case.arrive(returned(4, asked[-1], outer=outer))
            if sent[0].interface == BY_ROUTE:
                break
            outer = Ether(sent[0].data).payload
            asked.append(outer.dst)
            assert len(asked) <= 7
        assert set(asked) == {f"10.1.0.{n}" for n in range(1, 5)}


def reweight(case: Case, host: str, config: Config) -> None:
    """Another Maglev table: a host gets no new flows."""
    services = [
        service.model_copy(
            update={
                "backends": tuple(
                    b.model_copy(update={"weight": 0 if str(b.dip) == host else b.weight}) for b in service.backends
                )
            }
        )
        for service in config.services
    ]
    case.mux.control.commit(case.mux.control.plan(config.model_copy(update={"services": tuple(services)})))


@pytest.mark.parametrize("hops", [0, 1])
@FAMILIES
def test_a_packet_whose_ttl_reaches_zero_is_dropped(family: int, hops: int) -> None:
    case = Case()
    first = case.host_of(ip(family) / TCP(sport=40000, dport=80, flags="A"))
    left = {"ttl": hops} if family == 4 else {"hlim": hops}
    assert case.arrive(returned(family, first, **left)) == [] and case.slow.counts == {"returned_ttl": 1}


@FAMILIES
def test_each_round_decrements_the_ttl(family: int) -> None:
    case = Case()
    first = case.host_of(ip(family) / TCP(sport=40000, dport=80, flags="A"))
    ((_, outer),) = case.tunnelled(returned(family, first, **({"ttl": 2} if family == 4 else {"hlim": 2})))
    assert (outer.payload.ttl if family == 4 else outer.payload.hlim) == 1


def test_returns_have_a_budget_of_cpu_time() -> None:
    case = Case(second_chance_cpu=0.5)
    clock = count(0, 1 / 64)
    case.slow.cpu_s = lambda: next(clock)  # each packet takes 16 ms, and 50 ms are allowed at once
    first = case.host_of(ip(4) / TCP(sport=40000, dport=80, flags="A"))
    for _ in range(30):
        case.arrive(returned(4, first))
    assert case.slow.counts == {"returned_forwarded": 4, "returned_over_cpu": 26}
    case.now += 0.1
    for _ in range(10):
        case.arrive(returned(4, first))
    assert case.slow.counts["returned_forwarded"] == 7


def test_a_client_whose_packets_are_searched_for_without_end_leaves_others_their_part() -> None:
    case, other = Case(second_chance_cpu=0.5), ip(4, "192.0.2.99") / TCP(sport=40000, dport=80, flags="A")
    clock = count(0, 1 / 256)
    case.slow.cpu_s = lambda: next(clock)  # each packet takes 4 ms: the half of half a core is 64 a second
    first, forwarded = case.host_of(other), 0
    for at in range(1000):
        case.now = at / 1000
        case.arrive(returned(4, case.host_of(ip(4) / TCP(sport=40000, dport=80, flags="A"))))
        if at % 20 == 19:  # 50 a second
            forwarded += len(case.arrive(returned(4, first, source="192.0.2.99")))
    assert forwarded >= 45 and case.slow.counts["over_source_share"] > 0


def test_packets_of_one_connection_do_not_set_its_search_back() -> None:
    case, packet = Case(), ip(4) / TCP(sport=40000, dport=80, flags="A")
    first = case.host_of(packet)
    ((second, outer),) = case.tunnelled(returned(4, first))
    ((third, outer),) = case.tunnelled(returned(4, second, outer=outer))
    assert case.tunnelled(returned(4, first))[0][0] == second  # a copy in flight starts its own search
    assert case.host_of(packet) == third


def test_an_old_entry_that_a_host_refuses_is_replaced() -> None:
    case, packet = Case(), ip(4) / TCP(sport=40000, dport=80, flags="A")
    candidates = case.mux.forwarder.candidates(FLOW, 9)
    last = candidates.rest[-1]
    case.host_of(packet)
    case.mux.forwarder.assign(FLOW, last)
    host = case.host_of(packet)
    assert host == str(case.mux.forwarder.host(last))
    assert search(case, 4, host)[1] == str(case.mux.forwarder.host(candidates.likely[0]))
    assert case.slow.counts["returned_reset"] == 1


def icmp_error(family: int) -> Any:
    """A router's error about a packet of the backend to the client."""
    quote = bytes(back(family) / TCP(sport=80, dport=40000) / Raw(bytes(100)))
    if family == 4:
        return ip(4, "192.0.2.1") / ICMP(type=3, code=4, nexthopmtu=1400) / Raw(quote)
    return ip(6, "2001:db8:a::1") / ICMPv6PacketTooBig(mtu=1400) / Raw(quote)


@FAMILIES
def test_an_icmp_error_follows_the_search_of_its_connection(family: int) -> None:
    """An agent returns it if its host does not have that connection; the flow's entry does not change."""
    case, packet = Case(), ip(family) / TCP(sport=40000, dport=80, flags="A")
    first = case.host_of(packet)
    error = icmp_error(family)
    asked, outer = [first], None
    for _ in range(3):
        sent = returned(family, asked[-1], outer=outer)
        sent.payload = error
        ((host, outer),) = case.tunnelled(sent)
        assert bytes(outer.payload.payload) == bytes(error.payload) and case.host_of(packet) == first
        asked.append(host)
    assert len(set(asked)) == 4 and asked == search(Case(), family, first)
    last = returned(family, asked[-1], outer=outer)
    last.payload = error
    assert case.arrive(last) == [] and case.slow.counts == {"returned_forwarded": 3, "returned_not_answered": 1}


@FAMILIES
def test_an_icmp_error_that_goes_to_two_backends_is_searched_once(family: int) -> None:
    """Without an entry the slot's backend and its former one get a copy, and both hosts may return it."""
    case = Case()
    services = tuple(service.model_copy(update={"flows": "changed"}) for service in case.mux.config.services)
    config = case.mux.config.model_copy(update={"services": services})
    case.mux.control.commit(case.mux.control.plan(config))
    former = case.host_of(ip(family) / TCP(sport=40000, dport=80, flags="A"))
    reweight(case, former, config)
    case.mux.tables.settings[0]["tables_changed"] -= 2 * SEARCH_TICKS  # the change was a while ago
    error = icmp_error(family)
    going, asked = case.tunnelled(error), list[str]()
    assert len(going) == 2 and former in dict(going)
    while going:
        asked += [host for host, _ in going]
        back = [(host, returned(family, host, outer=outer)) for host, outer in going]
        for _, packet in back:
            packet.payload = error
        going = [sent for _, packet in back for sent in case.tunnelled(packet)]
    assert len(asked) == len(set(asked)) == 4
    assert case.slow.counts["returned_copy"] == 1 and case.slow.counts["returned_not_answered"] == 1


def test_a_host_that_is_a_mux_too_gives_packets_back() -> None:
    case = Case(muxes=(MUX, "10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4"))
    assert len(search(case, 4, case.host_of(ip(4) / TCP(sport=40000, dport=80, flags="A")))) == 4


def test_a_reset_connection_has_no_flow_entry() -> None:
    """A new one from the client's same port goes where the table says, as on every other mux."""
    case, packet = Case(), ip(4) / TCP(sport=40000, dport=80, flags="A")
    first = case.host_of(packet)
    search(case, 4, first)
    assert case.slow.counts["returned_reset"] == 1 and case.host_of(packet) == first


def test_a_reset_of_an_unknown_connection_is_not_answered() -> None:
    case = Case()
    last = IP(ttl=255)
    (order,) = [case.mux.forwarder.candidates(FLOW, 9)]
    sent = case.arrive(returned(4, str(case.mux.forwarder.host(order.rest[-1])), "R", last))
    assert sent == [] and case.slow.counts == {"returned_not_answered": 1}


def test_only_hosts_give_packets_back() -> None:
    case = Case()
    assert case.arrive(returned(4, "10.1.0.77")) == [] and not case.slow.counts


def test_a_packet_that_is_not_of_a_vip_is_dropped() -> None:
    case = Case()
    assert case.arrive(IP(src="10.1.0.1", dst=MUX) / IP(src=CLIENT, dst="203.0.113.9") / TCP()) == []
    assert case.arrive(IP(src="10.1.0.1", dst=MUX) / IP(src=CLIENT, dst=VIP) / ICMP()) == []
    assert case.slow.counts == {"returned_unusable": 2}


def test_a_flow_is_reassigned_in_every_workers_table() -> None:
    case, packet = Case(), bytes(Ether(**ETHER) / ip(4) / TCP(sport=40000, dport=80, flags="S"))
    was = {case.mux.forward(packet, by=worker)[0][1] for worker in (0, 1)}
    ((host, _),) = case.tunnelled(returned(4, case.host_of(ip(4) / TCP(sport=40000, dport=80, flags="A"))))
    now = {case.mux.forward(packet, by=worker)[0][1] for worker in (0, 1)}
    assert len(was) == len(now) == 1 and was != now
    assert case.mux.forwarder.host(now.pop()) == ip_address(host)


def test_a_connection_is_searched_at_the_configured_number_of_hosts_then_reset() -> None:
    case, packet = Case(second_chance_max_hosts=3), ip(4) / TCP(sport=40000, dport=80, flags="A")
    asked = search(case, 4, case.host_of(packet))
    assert len(set(asked)) == len(asked) == 3
    assert case.slow.counts == {"returned_forwarded": 2, "returned_reset": 1}


def test_a_host_that_may_not_be_asked_does_not_restart_the_search() -> None:
    """It had the flow by an entry from before; the likeliest are asked all the same."""
    case = Case(second_chance_max_hosts=2)
    order = case.mux.forwarder.candidates(FLOW, 9)
    likely = [str(case.mux.forwarder.host(one)) for one in order.likely + order.rest]
    assert search(case, 4, likely[3]) == [likely[3], *likely[:2]]


def test_each_of_many_backends_is_asked() -> None:
    backends = [{"name": f"b{n}", "dip": f"10.1.0.{n}"} for n in range(1, 25)]
    web = {"name": "web", "vip": VIP, "protocol": "tcp", "port": 80, "backends": backends}
    case, packet = Case(services=[web]), ip(4) / TCP(sport=40000, dport=80, flags="A")
    asked = search(case, 4, case.host_of(packet))
    assert set(asked) == {backend["dip"] for backend in backends} and len(asked) == 24
    assert case.slow.counts == {"returned_forwarded": 23, "returned_reset": 1}
