"""Whatever arrives: the slow path never raises, and what it sends can be read again."""

import random
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, fragment
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, fragment6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from lbmux.config.slowpath_models import SlowPath
from lbmux.datapath.verdicts import Verdict
from lbmux.slowpath.agent_slow_path import Adopted, AgentContext, AgentSlowPath, Target
from lbmux.slowpath.mux_context import MuxContext, vips_of
from lbmux.slowpath.mux_output import BY_ROUTE
from lbmux.slowpath.mux_slow_path import PUNTED, MuxSlowPath
from lbmux.slowpath.tunnels import carriers
from lbmux.wire.packet import read_frame, read_ip
from tests.slowpath.golden import DIP, ETHER, HOST, HOST6, MUX, MUX6, VIP, back, datagram, ip, segment
from tests.slowpath.tables import Mux

OTHER_MUX = "10.0.0.6"
VERDICTS = [*PUNTED, Verdict.NOT_TUNNELLED]


def originals() -> Iterator[Any]:
    """A packet of every kind that means something here."""
    yield from (ip(4) / ICMP() / Raw(bytes(56)), ip(6) / ICMPv6EchoRequest(data=bytes(56)))
    for family in (4, 6):
        quote = bytes(back(family) / TCP(sport=80, dport=40000) / Raw(bytes(100)))
        error = ICMP(type=3, code=4, nexthopmtu=1400) if family == 4 else ICMPv6PacketTooBig(mtu=1400)
        yield ip(family) / error / Raw(quote)
        own = MUX if family == 4 else MUX6
        outer = bytes(ip(family, own, HOST if family == 4 else HOST6) / ip(family) / segment(1400))[:500]
        yield ip(family, destination=own) / error / Raw(outer)
        yield ip(family, destination=own) / error / Raw(outer[: 28 if family == 4 else 48])
        yield ip(family) / segment(1460)
    yield from fragment(ip(4, id=1) / datagram(3000), 1400)
    yield from fragment6(ip(6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(id=1) / datagram(3000), 1400)
    yield IP(src=OTHER_MUX, dst=MUX) / fragment(ip(4, id=2) / datagram(3000), 1400)[0]


FRAMES = [bytes(Ether(**ETHER) / packet) for packet in originals()]
FRAMES += [bytes(Ether(**ETHER) / Dot1Q(vlan=7) / packet) for packet in originals()]


def slow_mux() -> MuxSlowPath:
    mux = Mux()
    services = [(s.vip, s.protocol, s.port) for s in mux.config.services]
    limits = SlowPath(icmp_per_s=1_000_000, packets_per_s=1_000_000)
    place = MuxContext(limits, vips_of(services), frozenset(map(ip_address, (MUX, OTHER_MUX))), carriers(mux.config))
    return MuxSlowPath(mux.forwarder, frozenset(mux.control.local.values()), place, lambda vip: True)


def slow_agent() -> AgentSlowPath:
    muxes = frozenset(map(ip_address, (MUX, MUX6)))
    hosts = frozenset(map(ip_address, (HOST, HOST6)))
    target = Target(ip_address(DIP), 80)
    never, gone, vip = (lambda flow: False), (lambda flow: Adopted.GONE), (lambda flow: (ip_address(VIP), 80))
    return AgentSlowPath(
        AgentContext(hosts, muxes, lambda flow: target, 6080, 6081, 1_000_000, never, gone, lambda flow: None, vip)
    )


def check(mux: MuxSlowPath, frame: bytes, verdict: Verdict, target: int, now: float) -> None:
    for sent in mux.handle(verdict, frame, target, now):
        assert (read_ip(sent.data) if sent.interface == BY_ROUTE else read_frame(sent.data)) is not None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_damaged_packets_at_a_mux(seed: int) -> None:
    chance, mux, now = random.Random(seed), slow_mux(), 0.0
    for _ in range(5000):
        data = bytearray(chance.choice(FRAMES))
        for _ in range(chance.randrange(4)):
            data[chance.randrange(12, min(len(data), 120))] = chance.choice([0, 1, 4, 6, 44, chance.randrange(256)])
        del data[chance.choice([len(data), chance.randrange(len(data))]) :]
        now += 0.001
        check(mux, bytes(data), chance.choice(VERDICTS), chance.choice([-1, 0, 3]), now)
    reached = {"echo_answered", "icmp_forwarded", "fragment_forwarded", "to_mux", "path_mtu_learned"}
    assert reached <= set(mux.counts), mux.counts


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_damaged_packets_at_an_agent(seed: int) -> None:
    chance, agent = random.Random(seed), slow_agent()
    tunnelled = [Ether(frame) for frame in FRAMES if Ether(frame).type in (0x0800, 0x86DD)]
    frames = [bytes(Ether(**ETHER) / IP(src=MUX, dst=HOST) / inner.payload) for inner in tunnelled]
    frames += [bytes(part) for part in fragment(Ether(frames[0]), 60)]
    for number in range(5000):
        data = bytearray(chance.choice(frames))
        for _ in range(chance.randrange(4)):
            data[chance.randrange(12, min(len(data), 120))] = chance.randrange(256)
        del data[chance.choice([len(data), chance.randrange(len(data))]) :]
        result = agent.inbound(chance.choice(VERDICTS), bytes(data), number / 1000)
        assert all(read_ip(packet) for packet in result.packets) and all(read_frame(frame) for frame in result.frames)
        agent.outbound(bytes(data), number / 1000)
        agent.without_entry(bytes(data), number / 1000)
        agent.own_error(bytes(data), number / 1000)
    assert agent.counts["icmp_delivered"]


MUX_UNDER_TEST = slow_mux()


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    frame=st.sampled_from(FRAMES),
    cut=st.integers(0, 2000),
    changes=st.lists(st.tuples(st.integers(12, 200), st.integers(0, 255)), max_size=8),
    verdict=st.sampled_from(VERDICTS),
)
def test_any_change(frame: bytes, cut: int, changes: list[tuple[int, int]], verdict: Verdict) -> None:
    data = bytearray(frame[:cut])
    for at, value in changes:
        if at < len(data):
            data[at] = value
    check(MUX_UNDER_TEST, bytes(data), verdict, 0, 0.0)
