"""The data path for one packet at a time, against what it does with a batch."""

from ipaddress import ip_address

import numpy as np
import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, defragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from lbmux.datapath.verdicts import Verdict
from lbmux.slowpath.candidates import host_key
from lbmux.slowpath.slow_path_flow import Candidates, Flow
from lbmux.tables.slot_pairs import is_marked
from tests.slowpath.golden import CLIENT, CLIENT6, ETHER, MUX, VIP, VIP6, datagram, ip, segment
from tests.slowpath.tables import INTERFACE, Mux

FAMILIES = pytest.mark.parametrize("family", [4, 6])


def flow(family: int, port: int, vip_port: int = 80) -> Flow:
    client, vip = (CLIENT, VIP) if family == 4 else (CLIENT6, VIP6)
    return Flow(6, ip_address(client), port, ip_address(vip), vip_port)


@FAMILIES
def test_owner_is_the_backend_that_the_data_path_chooses(family: int) -> None:
    mux = Mux()
    for port in range(40000, 40050):
        asked = mux.forwarder.owner(flow(family, port))
        ((verdict, target, _),) = mux.forward(bytes(Ether(**ETHER) / ip(family) / TCP(sport=port, dport=80)))
        assert (verdict, target) == (Verdict.FORWARDED, asked)


@FAMILIES
def test_owner_is_the_backend_that_has_the_flow_whoever_forwards_it_and_after_a_change(family: int) -> None:
    mux = Mux()
    frames = [bytes(Ether(**ETHER) / ip(family) / TCP(sport=port, dport=80)) for port in range(40000, 40050)]
    targets = [target for _, target, _ in mux.forward(*frames)]
    services = []
    for service in mux.config.services:
        backends = tuple(b.model_copy(update={"weight": 1 + 5 * (b.name == "b3")}) for b in service.backends)
        services.append(service.model_copy(update={"backends": backends}))
    mux.control.commit(mux.control.plan(mux.config.model_copy(update={"services": tuple(services)})))
    assert [mux.forwarder.owner(flow(family, port)) for port in range(40000, 40050)] == targets


def test_owner_does_not_enter_a_flow_and_enter_does() -> None:
    mux = Mux()
    asked = mux.forwarder.owner(flow(4, 40000))
    assert not mux.tables.flows["state"].any()
    assert mux.forwarder.enter(flow(4, 40000)) == asked
    assert int((mux.tables.flows["state"] != 0).sum()) == 1


def test_a_flow_without_a_service_has_no_owner() -> None:
    assert Mux().forwarder.owner(flow(4, 40000, 81)) is None


@FAMILIES
def test_candidates_begin_with_the_owner_and_are_as_many_as_wanted(family: int) -> None:
    mux = Mux()
    for port in range(40000, 40020):
        found = mux.forwarder.candidates(flow(family, port), 9)
        assert found.likely == [mux.forwarder.owner(flow(family, port))] == mux.forwarder.likely(flow(family, port))
        assert len({*found.likely, *found.rest}) == len(found.likely + found.rest) == 4
        keys = [host_key(flow(family, port), mux.forwarder.host(one)) for one in found.rest]
        assert found.keys == sorted(keys) == keys
        fewer = mux.forwarder.candidates(flow(family, port), 3)
        assert (fewer.likely, fewer.rest, fewer.keys) == (found.likely, found.rest[:2], found.keys[:2])
    assert mux.forwarder.candidates(flow(family, 40000, 81), 9) == Candidates([], [], [])


def without(mux: Mux, name: str) -> None:
    services = [
        service.model_copy(update={"backends": tuple(b for b in service.backends if b.name != name)})
        for service in mux.config.services
    ]
    mux.control.commit(mux.control.plan(mux.config.model_copy(update={"services": tuple(services)})))


def test_the_order_of_the_rest_survives_a_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A search may have begun before the change, with another likely one."""
    mux = Mux()
    ports = range(40000, 40040)
    before = {port: mux.forwarder.candidates(flow(4, port), 9) for port in ports}
    without(mux, "b3")
    gone = ({*before[40000].likely, *before[40000].rest} - {*mux.forwarder.candidates(flow(4, 40000), 9).rest}).pop()
    for port, found in before.items():
        now = mux.forwarder.candidates(flow(4, port), 9)
        assert set(now.rest) == {*found.likely, *found.rest} - {gone} and set(now.likely) <= set(now.rest)
        order = [one for one in found.rest if one != gone]
        assert [one for one in now.rest if one in order] == order
    monkeypatch.setattr("lbmux.slowpath.forwarder.SEARCH_TICKS", 0)
    settled = mux.forwarder.candidates(flow(4, 40000), 9)
    assert not set(settled.likely) & set(settled.rest)


@FAMILIES
def test_the_entry_is_the_flow_table_s(family: int) -> None:
    mux = Mux()
    assert mux.forwarder.entry(flow(family, 40000)) is None
    ((_, target, _),) = mux.forward(bytes(Ether(**ETHER) / ip(family) / TCP(sport=40000, dport=80)))
    assert mux.forwarder.entry(flow(family, 40000)) == target
    assert mux.forwarder.entry(flow(family, 40000, 81)) is None


@FAMILIES
def test_candidates_at_a_host(family: int) -> None:
    forwarder = Mux().forwarder
    candidates = forwarder.candidates(flow(family, 40000), 9)
    found = candidates.likely + candidates.rest
    assert [forwarder.at_host(found, forwarder.host(one)) for one in found] == [[one] for one in found]
    assert forwarder.at_host(found, ip_address("10.1.0.77")) == forwarder.at_host([], ip_address("10.1.0.1")) == []


@FAMILIES
def test_a_forgotten_flow_has_no_entry_in_any_workers_table(family: int) -> None:
    mux, frame = Mux(), bytes(Ether(**ETHER) / ip(family) / TCP(sport=40000, dport=80))
    for worker in (0, 1):
        mux.forward(frame, by=worker)
    mux.forwarder.enter(flow(family, 40001))
    assert int((mux.tables.flows["state"] != 0).sum()) > 1
    mux.forwarder.forget(flow(family, 40000))
    mux.forwarder.forget(flow(family, 40000, 81))
    assert int((mux.tables.flows["state"] != 0).sum()) == 1


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
    """Of tunnels by UDP only the first outer fragment has the port; and without a tunnel there is no outer packet."""
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
    target = mux.forwarder.owner(flow(family, 1))
    assert target is not None
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


def tracking_changes() -> Mux:
    mux = Mux()
    services = tuple(service.model_copy(update={"flows": "changed"}) for service in mux.config.services)
    mux.config = mux.config.model_copy(update={"services": services})
    mux.control.commit(mux.control.plan(mux.config))
    return mux


@FAMILIES
def test_a_connection_that_is_found_elsewhere_marks_its_steady_slot(family: int) -> None:
    """Else the data path would not look at the entry that the second chance made."""
    mux, one = tracking_changes(), flow(family, 40000)
    frame = bytes(Ether(**ETHER) / ip(family) / TCP(sport=40000, dport=80, flags="A"))
    owner = mux.forwarder.owner(one)
    other = mux.forwarder.candidates(one, 9).rest[0]
    assert [target for _, target, _ in mux.forward(frame)] == [owner]
    mux.forwarder.assign(one, other)
    assert mux.control.slots.is_marked()
    assert [target for _, target, _ in mux.forward(frame, frame)] == [other, other]
    mux.forwarder.assign(flow(family, 40001), mux.forwarder.owner(flow(family, 40001)) or 0)
    assert sum(len(np.flatnonzero(is_marked(mux.control.slots.pairs(row)))) for row in range(4)) == 1


@FAMILIES
def test_the_owners_of_a_flow_without_an_entry_are_its_slot_s_backend_and_base(family: int) -> None:
    mux = tracking_changes()
    ports = range(40000, 40100)
    before = [mux.forwarder.owner(flow(family, port)) for port in ports]
    services = []
    for service in mux.config.services:
        backends = tuple(b.model_copy(update={"weight": 1 + 5 * (b.name == "b3")}) for b in service.backends)
        services.append(service.model_copy(update={"backends": backends}))
    mux.control.commit(mux.control.plan(mux.config.model_copy(update={"services": tuple(services)})))
    moved = 0
    for port, base in zip(ports, before, strict=True):
        now = mux.forwarder.owner(flow(family, port))
        assert mux.forwarder.owners(flow(family, port)) == list(dict.fromkeys([now, base]))
        moved += now != base
    assert moved > 10
    mux.forwarder.enter(flow(family, ports[0]))
    assert len(mux.forwarder.owners(flow(family, ports[0]))) == 1
    assert mux.forwarder.owners(flow(family, 40000, 81)) == []
