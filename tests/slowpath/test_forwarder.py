"""The data path for one packet at a time, against what it does with a batch."""

from ipaddress import ip_address, ip_network

import numpy as np
import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether

from lbmux.datapath.verdicts import Verdict
from lbmux.slowpath.candidates import host_key
from lbmux.slowpath.slow_path_flow import Candidates, Flow
from lbmux.tables.slot_pairs import is_marked
from tests.slowpath.golden import CLIENT, CLIENT6, ETHER, VIP, VIP6, ip
from tests.slowpath.tables import Mux

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
    mux = Mux()
    assert mux.forwarder.owner(flow(4, 40000, 81)) is mux.forwarder.enter(flow(4, 40000, 81)) is None


@FAMILIES
def test_a_client_that_is_denied_has_no_owner_and_enters_no_flow(family: int) -> None:
    mux = Mux()
    denied = {"deny": (ip_network(CLIENT if family == 4 else CLIENT6),)}
    services = tuple(service.model_copy(update=denied) for service in mux.config.services)
    mux.control.commit(mux.control.plan(mux.config.model_copy(update={"services": services})))
    assert mux.forwarder.owner(flow(family, 40000)) is mux.forwarder.enter(flow(family, 40000)) is None
    assert not mux.tables.flows["state"].any()


@FAMILIES
def test_candidates_begin_with_the_owner_and_are_as_many_as_wanted(family: int) -> None:
    mux = Mux()
    for port in range(40000, 40020):
        candidates = mux.forwarder.candidates(flow(family, port), 9)
        assert (
            candidates.likely == [mux.forwarder.owner(flow(family, port))] == mux.forwarder.likely(flow(family, port))
        )
        assert len({*candidates.likely, *candidates.rest}) == len(candidates.likely + candidates.rest) == 4
        keys = [host_key(flow(family, port), mux.forwarder.host(one)) for one in candidates.rest]
        assert candidates.keys == sorted(keys) == keys
        fewer = mux.forwarder.candidates(flow(family, port), 3)
        assert (fewer.likely, fewer.rest, fewer.keys) == (candidates.likely, candidates.rest[:2], candidates.keys[:2])
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
    for port, earlier in before.items():
        now = mux.forwarder.candidates(flow(4, port), 9)
        assert set(now.rest) == {*earlier.likely, *earlier.rest} - {gone} and set(now.likely) <= set(now.rest)
        order = [one for one in earlier.rest if one != gone]
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
    backends = candidates.likely + candidates.rest
    assert [forwarder.at_host(backends, forwarder.host(one)) for one in backends] == [[one] for one in backends]
    assert forwarder.at_host(backends, ip_address("10.1.0.77")) == forwarder.at_host([], ip_address("10.1.0.1")) == []


@FAMILIES
def test_a_forgotten_flow_has_no_entry(family: int) -> None:
    mux, frame = Mux(), bytes(Ether(**ETHER) / ip(family) / TCP(sport=40000, dport=80))
    for worker in (0, 1):
        mux.forward(frame, by=worker)
    mux.forwarder.enter(flow(family, 40001))
    assert int((mux.tables.flows["state"] != 0).sum()) > 1
    mux.forwarder.forget(flow(family, 40000))
    mux.forwarder.forget(flow(family, 40000, 81))
    assert int((mux.tables.flows["state"] != 0).sum()) == 1


def tracking_changes() -> Mux:
    mux = Mux()
    services = tuple(service.model_copy(update={"flows": "changed"}) for service in mux.config.services)
    mux.config = mux.config.model_copy(update={"services": services})
    mux.control.commit(mux.control.plan(mux.config))
    return mux


@FAMILIES
def test_a_connection_that_is_found_elsewhere_marks_its_steady_slot(family: int) -> None:
    """Otherwise the data path would not look at the entry that the second chance made."""
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
