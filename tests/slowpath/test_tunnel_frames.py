"""Frames to a backend's host, against those that the data path makes."""

import pytest
from scapy.layers.inet import ICMP, IP, UDP, defragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.slowpath.golden import CLIENT, ETHER, MUX, VIP, datagram, ip, segment
from tests.slowpath.tables import INTERFACE, Mux

FAMILIES = pytest.mark.parametrize("family", [4, 6])


@FAMILIES
def test_tunnel_makes_the_frame_that_the_data_path_makes(family: int) -> None:
    mux = Mux()
    packet = ip(family) / segment(300)
    ((_, target, expected),) = mux.forward(bytes(Ether(**ETHER) / packet))
    ((interface, frame),) = mux.forwarder.tunnel(bytes(packet), target)
    assert (interface, frame) == (INTERFACE, expected)


@FAMILIES
@pytest.mark.parametrize("kind", ["ipip", "gue1", "gue0", "gre", "geneve", "direct"])
def test_the_outer_ttl_can_be_another(family: int, kind: str) -> None:
    mux, layer = Mux(tunnel={"kind": kind}), IP if family == 4 else IPv6
    ((_, usual),) = mux.forwarder.tunnel(bytes(ip(family) / segment(300)), 0 if family == 4 else 4)
    ((_, frame),) = mux.forwarder.tunnel(bytes(ip(family) / segment(300)), 0 if family == 4 else 4, 192)
    expected = Ether(usual)[layer]
    if kind != "direct":
        setattr(expected, "ttl" if family == 4 else "hlim", 192)
        if family == 4:
            del expected.chksum
    assert bytes(Ether(frame)[layer]) == bytes(expected)


@pytest.mark.parametrize("kind", ["ipip", "gue1", "gue0", "gre", "geneve"])
def test_every_encapsulation(kind: str) -> None:
    mux = Mux(tunnel={"kind": kind})
    packet = ip(4) / segment(300)
    ((_, target, expected),) = mux.forward(bytes(Ether(**ETHER) / packet))
    assert mux.forwarder.tunnel(bytes(packet), target) == [(INTERFACE, expected)]
    assert mux.forwarder.inner_mtu(target) == 1500 - (len(expected) - 14 - len(packet))


def test_tunnel_of_an_icmp_error_takes_a_hop_from_it() -> None:
    mux = Mux()
    ((_, frame),) = mux.forwarder.tunnel(bytes(ip(4, ttl=9) / ICMP(type=3, code=4) / Raw(bytes(28))), 0)
    outer = Ether(frame)[IP]
    assert (outer.src, outer.proto, outer.payload.ttl, outer.payload[ICMP].code) == (MUX, 4, 8, 4)


def test_outer_packets_too_big_for_the_path_are_fragmented_with_distinct_identifications() -> None:
    mux = Mux()
    parts = [IP(src=CLIENT, dst=VIP, id=5, flags="MF", frag=at * 185, proto=17) / Raw(bytes(1480)) for at in range(2)]
    frames = [frame for part in parts for _, frame in mux.forwarder.tunnel(bytes(part), 0)]
    outer = [Ether(frame)[IP] for frame in frames]
    assert len(outer) == 4 and all(len(packet) <= 1500 for packet in outer)
    assert len({packet.id for packet in outer}) == 2
    first, second = defragment(outer)
    assert (bytes(first.payload)[20:], bytes(second.payload)[20:]) == (bytes(1480), bytes(1480))
    assert not any(packet.flags.DF for packet in outer)


@pytest.mark.parametrize("kind", ["gue1", "gue0", "geneve", "direct"])
def test_inner_packets_are_fragmented_where_a_host_cannot_recognise_outer_fragments(kind: str) -> None:
    """With a UDP tunnel only the first outer fragment has the port; without a tunnel there is no outer packet."""
    mux = Mux(mtu=1400, tunnel={"kind": kind})
    packet = ip(4, id=5) / datagram(1472)
    outer = [Ether(frame)[IP] for _, frame in mux.forwarder.tunnel(bytes(packet), 0)]
    assert len(outer) == 2 and all(len(one) <= 1400 and (kind == "direct" or not one.flags.MF) for one in outer)
    inside = {"gue1": 28, "gue0": 32, "geneve": 36, "direct": 0}[kind]
    (whole,) = defragment([IP(bytes(one)[inside:]) for one in outer])
    assert bytes(whole[UDP]) == bytes(packet[UDP])


def test_without_a_tunnel_df_packets_are_not_fragmented() -> None:
    mux = Mux(mtu=1400, tunnel={"kind": "direct"})
    assert mux.forwarder.tunnel(bytes(ip(4, flags="DF") / datagram(1472)), 0) == []
    assert mux.forwarder.unsent == 1


def test_a_path_known_to_be_narrower() -> None:
    mux = Mux()
    mux.forwarder.mtus = lambda host, mtu_bytes: 1400
    assert mux.forwarder.inner_mtu(0) == 1380
    assert all(len(frame) <= 1414 for _, frame in mux.forwarder.tunnel(bytes(ip(4) / datagram(1300)), 0))


@FAMILIES
def test_the_largest_packet(family: int) -> None:
    mux = Mux()
    packet = bytes(ip(family) / UDP(sport=1, dport=53) / Raw(bytes(65000)))
    target = mux.control.rows[f"dns{family}", "b1"]
    frames = [frame for _, frame in mux.forwarder.tunnel(packet, target)]
    kind = IP if family == 4 else IPv6
    assert sum(len(Ether(frame)[kind].payload) for frame in frames) >= len(packet)


def test_no_frame_without_a_neighbour_or_a_backend() -> None:
    mux = Mux()
    for host in mux.control.destinations():
        mux.control.set_next_hop(host, None)
    assert mux.forwarder.tunnel(bytes(ip(4) / segment()), 0) == []
    assert mux.forwarder.tunnel(bytes(ip(4) / segment()), 4000) == []
    assert mux.forwarder.unsent == 2
