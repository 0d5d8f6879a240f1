"""An agent's slow path: tunnelled frames as a real mux's slow path makes them."""

from dataclasses import replace
from ipaddress import ip_address
from itertools import count
from typing import Any, NamedTuple

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from lbmux.addresses import Address
from lbmux.datapath.verdicts import Verdict
from lbmux.slowpath.agent_slow_path import Adopted, AgentContext, AgentSlowPath, Target
from lbmux.slowpath.slow_path_flow import Flow
from tests.slowpath.golden import (
    CLIENT,
    CLIENT6,
    DIP,
    DIP6,
    ETHER,
    HOST,
    HOST6,
    MUX,
    MUX6,
    VIP,
    back,
    datagram,
    dissect,
    ip,
)
from tests.slowpath.tables import Mux

FAMILIES = pytest.mark.parametrize("family", [4, 6])
KINDS = ["ipip", "gue1", "gue0", "gre", "geneve"]


class TraceEvent(NamedTuple):
    """Packets for the stack, and frames for the data path."""

    packets: list[bytes]
    frames: list[bytes]


class Case:
    def __init__(self, translate: bool = True, packets_per_s: int = 10_000, asks: bool = False) -> None:
        self.translate, self.asks = translate, asks
        hosts = frozenset(map(ip_address, [HOST, HOST6]))
        muxes = frozenset(map(ip_address, [MUX, MUX6]))
        self.asked: list[Flow] = []
        self.has = False
        self.adopts = Adopted.KNOWN
        self.vip: tuple[Address, int] | None = None
        self.deleted: list[Flow] = []
        ask = self.connected, self.adopt, self.deleted.append, lambda flow: self.vip
        host = AgentContext(hosts, muxes, self.target, 6080, 6081, packets_per_s, *ask)
        self.slow = AgentSlowPath(host, cpu_s=lambda: 0.0)

    def inbound(self, verdict: Verdict, frame: bytes, now: float) -> TraceEvent:
        result = self.slow.inbound(verdict, frame, now)
        assert (result.back, result.known_local) == ((), False)
        return TraceEvent(result.packets, result.frames)

    def adopt(self, flow: Flow) -> Adopted:
        self.asked.append(flow)
        return self.adopts

    def connected(self, flow: Flow) -> bool:
        self.asked.append(flow)
        return self.has

    def target(self, flow: Flow) -> Target | None:
        if flow.vip_port not in (53, 80):
            return None
        if not self.translate:
            return Target(flow.vip, 0, self.asks)
        return Target(ip_address(DIP if flow.vip.version == 4 else DIP6), 8080, self.asks)


def tunnelled(packet: Any, kind: str = "ipip", mtu: int = 1500) -> list[bytes]:
    """What a mux sends to the host; the row of its first backend of the family."""
    mux = Mux(mtu, tunnel={"kind": kind})
    host = HOST if isinstance(packet, IP) else HOST6
    row = next(mux.control.rows[s.name, b.name] for s in mux.config.services for b in s.backends if str(b.dip) == host)
    return [frame for _, frame in mux.forwarder.tunnel(bytes(packet), row)]


def error(family: int, port: int = 80) -> Any:
    quote = bytes(back(family) / TCP(sport=port, dport=40000) / Raw(bytes(400)))
    if family == 4:
        return ip(4, "192.0.2.1") / ICMP(type=3, code=4, nexthopmtu=1400) / Raw(quote)
    return ip(6, "2001:db8:a::1") / ICMPv6PacketTooBig(mtu=1400) / Raw(quote)


@pytest.mark.parametrize("kind", KINDS)
@FAMILIES
def test_error_translated(family: int, kind: str) -> None:
    (frame,) = tunnelled(error(family), kind)
    ((packet,), frames) = Case().inbound(Verdict.ICMP, frame, 0.0)
    assert frames == []
    made = dissect(packet)
    assert made.dst == (DIP if family == 4 else DIP6)
    quote = packet[28:] if family == 4 else packet[48:]
    client, dip = (CLIENT, DIP) if family == 4 else (CLIENT6, DIP6)
    assert quote == bytes(ip(family, dip, client) / TCP(sport=8080, dport=40000) / Raw(bytes(400)))


@FAMILIES
def test_error_where_nothing_is_translated(family: int) -> None:
    (frame,) = tunnelled(error(family))
    ((packet,), _) = Case(translate=False).inbound(Verdict.ICMP, frame, 0.0)
    kind = IP if family == 4 else IPv6
    whole = kind(packet)
    assert bytes(whole.payload) == bytes(error(family).payload)


def test_error_about_no_service_here() -> None:
    case = Case()
    (frame,) = tunnelled(error(4, 81))
    assert case.inbound(Verdict.ICMP, frame, 0.0) == ([], [])
    assert case.slow.counts == {"icmp_no_flow": 1}


def test_packets_from_other_hosts_are_ignored() -> None:
    case = Case()
    frame = bytes(Ether(**ETHER) / IP(src="10.0.0.66", dst=HOST) / error(4))
    assert case.inbound(Verdict.ICMP, frame, 0.0) == ([], [])
    frame = bytes(Ether(**ETHER) / IP(src=MUX, dst="10.1.0.99") / error(4))
    assert case.inbound(Verdict.ICMP, frame, 0.0) == ([], [])


def test_limited() -> None:
    case = Case(packets_per_s=100)
    (frame,) = tunnelled(error(4))
    assert sum(len(case.inbound(Verdict.ICMP, frame, 0.0).packets) for _ in range(50)) == 10


@FAMILIES
def test_fragments_of_the_inner_packet(family: int) -> None:
    case = Case()
    if family == 4:
        parts, whole = fragment(ip(4, id=3) / datagram(4000), 1400), ip(4, id=3) / datagram(4000)
    else:
        parts = fragment6(ip(6) / IPv6ExtHdrFragment(id=3) / datagram(4000), 1400)
        whole = ip(6) / datagram(4000)
    results = [case.inbound(Verdict.FRAGMENT, frame, 0.0) for part in reversed(parts) for frame in tunnelled(part)]
    (frame,) = [frame for result in results for frame in result.frames]
    outer = Ether(frame).payload
    assert (outer.src, outer.dst) == ((MUX, HOST) if family == 4 else (MUX6, HOST6))
    assert bytes(outer.payload[UDP]) == bytes(whole[UDP])
    dissect(bytes(outer))


def test_fragments_of_the_outer_packet() -> None:
    case = Case()
    pieces = tunnelled(ip(4) / datagram(1460))
    assert len(pieces) == 2
    assert case.inbound(Verdict.NOT_TUNNELLED, pieces[1], 0.0) == ([], [])
    ((), (frame,)) = case.inbound(Verdict.NOT_TUNNELLED, pieces[0], 0.0)
    outer = Ether(frame)[IP]
    assert (outer.src, outer.dst, outer.proto, outer.flags.MF) == (MUX, HOST, 4, 0)
    assert bytes(outer.payload[UDP]) == bytes((ip(4) / datagram(1460))[UDP])


def test_fragments_of_a_reply() -> None:
    case = Case()
    whole = ip(4, DIP, CLIENT, id=9) / UDP(sport=8080, dport=40000) / Raw(bytes(4000))
    link = Ether(src="00:00:00:00:00:00", dst="00:00:00:00:00:00")
    *firsts, last = [bytes(link / part) for part in fragment(whole, 1400)]
    assert [case.slow.outbound(frame, 0.0) for frame in firsts] == [None] * len(firsts)
    frame = case.slow.outbound(last, 0.0)
    assert frame is not None and bytes(Ether(frame)[UDP]) == bytes(whole[UDP])


def segment(family: int, flags: str = "A") -> Any:
    return ip(family) / TCP(sport=40000, dport=80, flags=flags, seq=7, ack=9) / Raw(b"hello")


@pytest.mark.parametrize("kind", KINDS)
@FAMILIES
def test_a_connection_that_the_host_has_is_marked_known_local(family: int, kind: str) -> None:
    case, (frame,) = Case(), tunnelled(segment(family), kind)
    case.has = True
    assert case.slow.inbound(Verdict.UNKNOWN_CONNECTION, frame, 0.0) == ([], [frame], (), True)
    client, dip = (CLIENT, DIP) if family == 4 else (CLIENT6, DIP6)
    assert case.asked == [Flow(6, ip_address(client), 40000, ip_address(dip), 8080)]  # as its server knows it


@pytest.mark.parametrize("kind", KINDS)
@FAMILIES
def test_a_connection_that_the_host_does_not_have_goes_back_to_the_mux(family: int, kind: str) -> None:
    case, packet = Case(), segment(family)
    (frame,) = tunnelled(packet, kind)
    packets, frames, (back,), known_local = case.slow.inbound(Verdict.UNKNOWN_CONNECTION, frame, 0.0)
    assert (packets, frames, known_local) == ([], [], False)
    host, mux = (HOST, MUX) if family == 4 else (HOST6, MUX6)
    outer = dissect(back)
    assert (outer.src, outer.dst) == (host, mux)
    inner = outer.payload
    assert (inner.src, inner.dst, bytes(inner.payload)) == (packet.src, packet.dst, bytes(packet.payload))
    assert case.slow.counts == {"unknown_returned": 1}


@FAMILIES
def test_a_syn_by_another_vip_than_that_of_the_connection_goes_back_to_the_mux(family: int) -> None:
    case, (frame,) = Case(), tunnelled(segment(family, "S"))
    case.has = True
    packets, frames, (back,), _ = case.slow.inbound(Verdict.UNKNOWN_CONNECTION, frame, 0.0)
    outer = dissect(back)
    assert (packets, frames, outer.src, outer.dst) == ([], [], *((HOST, MUX) if family == 4 else (HOST6, MUX6)))
    assert (case.slow.counts, case.deleted) == ({"unknown_of_another_vip": 1}, [])


@pytest.mark.parametrize("has_muxes", [True, False])
@FAMILIES
def test_a_syn_by_another_vip_opens_a_connection_once_the_former_is_over(family: int, has_muxes: bool) -> None:
    case, (frame,) = Case(), tunnelled(segment(family, "S"))
    if not has_muxes:
        case.slow.configure(replace(case.slow.context, muxes=frozenset()))
    assert case.slow.inbound(Verdict.UNKNOWN_CONNECTION, frame, 0.0) == ([], [frame], (), True)
    assert case.deleted == case.asked and case.slow.counts == {"unknown_reopened": 1}


@FAMILIES
def test_a_packet_of_a_connection_by_another_vip_goes_back_to_the_mux(family: int) -> None:
    case, (frame,) = Case(), tunnelled(segment(family))
    (back,) = case.slow.of_another_vip(frame).back
    assert dissect(back).dst == (MUX if family == 4 else MUX6)
    case.slow.configure(replace(case.slow.context, muxes=frozenset()))
    assert case.slow.of_another_vip(frame).back == (), "no mux would take it"
    assert case.slow.counts == {"unknown_of_another_vip": 2}


def test_unknown_connections_over_the_rate_are_dropped() -> None:
    """Without a check they cannot be delivered: the stack would reset a connection that another host has."""
    case, (frame,) = Case(packets_per_s=10), tunnelled(segment(4))
    results = [case.slow.inbound(Verdict.UNKNOWN_CONNECTION, frame, 0.0) for _ in range(30)]
    counts = case.slow.counts
    assert (
        not any(one.frames for one in results) and sum(len(one.back) for one in results) == counts["unknown_returned"]
    )
    assert counts["over_packets_per_s"] > 0 and counts.total() == 30


def test_asking_has_a_budget_of_cpu_time() -> None:
    case, (frame,) = Case(), tunnelled(segment(4))
    case.slow.configure(replace(case.slow.context, socket_check_cpu=0.5))
    clock = count(0, 1 / 64)
    case.slow.cpu_s = lambda: next(clock)  # each question takes 16 ms, and 50 ms are allowed at once
    for _ in range(30):
        case.slow.inbound(Verdict.UNKNOWN_CONNECTION, frame, 0.0)
    assert case.slow.counts == {"unknown_returned": 4, "unknown_over_cpu": 26}
    for _ in range(10):
        case.slow.inbound(Verdict.UNKNOWN_CONNECTION, frame, 0.1)
    assert case.slow.counts["unknown_returned"] == 7


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_at_many_times_the_budget_leaves_another_its_part(kind: str) -> None:
    case, (flood,) = Case(), tunnelled(segment(4), kind)
    (frame,) = tunnelled(IP(src="192.0.2.99", dst=VIP) / TCP(sport=40000, dport=80, flags="A"), kind)
    case.slow.configure(replace(case.slow.context, socket_check_cpu=0.5))
    clock = count(0, 1 / 256)
    case.slow.cpu_s = lambda: next(clock)  # each question takes 4 ms: the half of half a core is 64 a second
    asked = 0
    for at in range(1000):
        case.slow.inbound(Verdict.UNKNOWN_CONNECTION, flood, at / 1000)
        if at % 20 == 19:  # 50 a second
            asked += len(case.slow.inbound(Verdict.UNKNOWN_CONNECTION, frame, at / 1000).back)
    assert asked >= 45 and case.slow.counts["over_source_share"] > 0


def test_a_mux_without_a_known_address_is_trusted() -> None:
    case, (frame,) = Case(), tunnelled(segment(4))
    case.slow.configure(replace(case.slow.context, muxes=frozenset()))
    assert case.slow.inbound(Verdict.UNKNOWN_CONNECTION, frame, 0.0).known_local


@pytest.mark.parametrize("translate", [True, False], ids=["nat", "local"])
@pytest.mark.parametrize("kind", KINDS)
@FAMILIES
def test_an_error_about_a_connection_that_the_host_does_not_have_goes_back_to_the_mux(
    family: int, kind: str, translate: bool
) -> None:
    case, packet = Case(translate, asks=True), error(family)
    (frame,) = tunnelled(packet, kind)
    packets, frames, (back,), _ = case.slow.inbound(Verdict.ICMP, frame, 0.0)
    outer = dissect(back)
    assert (packets, frames, outer.src, outer.dst) == ([], [], *((HOST, MUX) if family == 4 else (HOST6, MUX6)))
    assert (outer.payload.src, bytes(outer.payload.payload)) == (packet.src, bytes(packet.payload))
    server = (DIP if family == 4 else DIP6, 8080) if translate else (packet.dst, 80)
    client = CLIENT if family == 4 else CLIENT6
    assert case.asked == [Flow(6, ip_address(client), 40000, ip_address(server[0]), server[1])]
    assert case.slow.counts == {"icmp_returned": 1}


@FAMILIES
def test_an_error_about_a_connection_that_the_host_has_is_delivered(family: int) -> None:
    case, (frame,) = Case(asks=True), tunnelled(error(family))
    case.has = True
    assert len(case.inbound(Verdict.ICMP, frame, 0.0).packets) == 1 and case.asked


@pytest.mark.parametrize(("port", "counter"), [(80, "icmp_returned"), (81, "icmp_no_flow")])
def test_errors_share_the_budget_of_cpu_time(port: int, counter: str) -> None:
    case, (frame,) = Case(asks=True), tunnelled(error(4, port))
    clock = count(0, 1 / 64)
    case.slow.cpu_s = lambda: next(clock)  # each question takes 16 ms, and 50 ms are allowed at once
    for _ in range(30):
        case.slow.inbound(Verdict.ICMP, frame, 0.0)
    assert case.slow.counts == {counter: 4, "unknown_over_cpu": 26}


def test_a_backend_that_is_its_own_client_has_the_vip_as_its_peer() -> None:
    case = Case(asks=True)
    case.has = True
    (frame,) = tunnelled(ip(4, DIP) / TCP(sport=40000, dport=80, flags="A"))
    case.slow.inbound(Verdict.UNKNOWN_CONNECTION, frame, 0.0)
    vip = ip_address(ip(4).dst)
    assert case.asked == [Flow(6, vip, 40000, ip_address(DIP), 8080)]


@pytest.mark.parametrize("outcome", Adopted)
def test_a_reply_without_an_entry_is_asked_about_and_counted(outcome: Adopted) -> None:
    case = Case()
    case.adopts = outcome
    frame = bytes(Ether(**ETHER) / IP(src=DIP, dst=CLIENT) / TCP(sport=8080, dport=40000, flags="PA"))
    assert case.slow.without_entry(frame, 0.0) == outcome
    assert case.asked == [Flow(6, ip_address(CLIENT), 40000, ip_address(DIP), 8080)]
    assert case.slow.counts == {outcome.value: 1}


def test_replies_without_an_entry_are_asked_about_within_the_slow_path_s_rate() -> None:
    case = Case(packets_per_s=1)
    frame = bytes(Ether(**ETHER) / IP(src=DIP, dst=CLIENT) / TCP(sport=8080, dport=40000, flags="PA"))
    outcomes = [case.slow.without_entry(frame, 0.0) for _ in range(200)]
    assert outcomes[-1] is None and case.slow.counts["over_packets_per_s"] >= 1


@FAMILIES
def test_an_icmp_error_of_the_host_comes_from_the_vip_and_quotes_it(family: int) -> None:
    case = Case()
    client, dip, vip = (CLIENT, DIP, "192.0.2.1") if family == 4 else (CLIENT6, DIP6, "2001:db8:192::1")
    quoted = ip(family, client, dip) / UDP(sport=40000, dport=5353) / Raw(b"question")
    kind = ICMP(type=3, code=3) if family == 4 else ICMPv6DestUnreach(code=4)
    frame = bytes(Ether(**ETHER) / ip(family, dip, client) / kind / Raw(bytes(quoted)))
    assert case.slow.own_error(frame, 0.0) == frame, "no entry: a client of the DIP itself"
    case.vip = ip_address(vip), 53
    translated = case.slow.own_error(frame, 0.0)
    assert translated is not None and case.slow.counts["icmp_translated"] == 1
    wanted = ip(family, client, vip) / UDP(sport=40000, dport=53) / Raw(b"question")
    expected = bytes(Ether(**ETHER) / ip(family, vip, client) / kind / Raw(bytes(wanted)))
    addresses, message = (slice(26, 34), slice(34, None)) if family == 4 else (slice(22, 54), slice(54, None))
    assert (translated[addresses], translated[message]) == (expected[addresses], expected[message])
