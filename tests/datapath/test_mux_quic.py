"""QUIC by connection id: the flow has an entry, so that what cannot read ids finds its backend too."""

from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from lbmux.datapath.tables import LOOKUPS
from lbmux.datapath.verdicts import Verdict
from lbmux.slowpath.slow_path_flow import Flow
from lbmux.targets.native import Worker
from lbmux.targets.regions import now_ticks
from tests.datapath.craft import quic
from tests.datapath.harness import Frames
from tests.slowpath.golden import CLIENT, CLIENT6, ETHER, VIP, VIP6, ip
from tests.slowpath.tables import Mux

PORT, FAMILIES = 40000, pytest.mark.parametrize("family", [4, 6])


IDLE = {"untrusted_s": 600, "udp_s": 600}
"""Longer than it takes to compile between two packets."""


def mux(flows: str = "all") -> Mux:
    services: list[dict[str, Any]] = [
        {
            "name": f"h3-{family}", "vip": VIP if family == 4 else VIP6, "protocol": "udp", "port": 443,
            "quic": {"rotation": 2, "id_bytes": 1}, "idle": IDLE, "flows": flows,
            "backends": [
                {"name": f"b{n}", "dip": f"10.1.0.{n}" if family == 4 else f"fd00:1::{n}", "server_id": f"0{n}"}
                for n in range(1, 5)
            ],
        }
        for family in (4, 6)
    ]  # fmt: skip
    return Mux(services=services)


def flow(family: int) -> Flow:
    client, vip = (CLIENT, VIP) if family == 4 else (CLIENT6, VIP6)
    return Flow(17, ip_address(client), PORT, ip_address(vip), 443)


def target(mux: Mux, family: int, payload: bytes) -> int:
    frame = bytes(Ether(**ETHER) / ip(family) / UDP(sport=PORT, dport=443) / Raw(payload))
    ((verdict, target, _),) = mux.forward(frame)
    assert verdict == Verdict.FORWARDED
    return target


def row(mux: Mux, family: int, server: int) -> int:
    return mux.control.rows[f"h3-{family}", f"b{server}"]


UNKNOWN = quic(77)


@FAMILIES
@pytest.mark.parametrize("flows", ["all", "changed"])
@pytest.mark.parametrize("is_long", [False, True], ids=["short header", "long header"])
def test_a_packet_that_goes_by_its_id_enters_the_flow(family: int, is_long: bool, flows: str) -> None:
    """ICMP errors and packets with an unknown id find the flow's backend, and `drain` waits for the flow."""
    for server in range(1, 5):
        one = mux(flows)
        assert target(one, family, quic(server, is_long=is_long)) == row(one, family, server)
        assert one.forwarder.entry(flow(family)) == one.forwarder.owner(flow(family)) == row(one, family, server)
        assert target(one, family, UNKNOWN) == row(one, family, server)


@FAMILIES
@pytest.mark.parametrize("flows", ["all", "changed"])
def test_a_packet_with_an_unknown_id_on_another_cpu_finds_the_entry(family: int, flows: str) -> None:
    one = mux(flows)
    frame = bytes(Ether(**ETHER) / ip(family) / UDP(sport=PORT, dport=443) / Raw(UNKNOWN))
    for server in range(1, 5):
        target(one, family, quic(server))
        Worker(one.tables, 1, plain=True).forward(batch := Frames([frame]), now_ticks())
        assert batch.results()[0][:2] == (Verdict.FORWARDED, row(one, family, server))


@FAMILIES
def test_an_entry_by_the_slot_is_the_named_backend_s_from_then_on(family: int) -> None:
    one = mux()
    first = target(one, family, UNKNOWN)
    other = next(n for n in range(1, 5) if row(one, family, n) != first)
    assert target(one, family, quic(other)) == target(one, family, UNKNOWN) == row(one, family, other)
    assert int((one.tables.flows["state"] != 0).sum()) == 1


@FAMILIES
def test_a_packet_by_its_id_refreshes_the_entry(family: int) -> None:
    one = mux()
    target(one, family, quic(1))
    flows = one.tables.flows
    entered = flows["state"] != 0
    flows["seen"][entered] -= 5000
    before = int(flows["seen"][entered][0])
    target(one, family, quic(1))
    assert int(flows["seen"][entered][0]) - before >= 5000


def test_a_backend_that_is_drained_keeps_its_flow_by_id_until_it_is_idle() -> None:
    one = mux()
    target(one, 4, quic(1))
    services = []
    for service in one.config.services:
        backends = tuple(b.model_copy(update={"weight": int(b.name != "b1")}) for b in service.backends)
        services.append(service.model_copy(update={"backends": backends}))
    one.control.commit(one.control.plan(one.config.model_copy(update={"services": tuple(services)})))
    assert target(one, 4, quic(1)) == target(one, 4, UNKNOWN) == row(one, 4, 1)
    assert one.forwarder.entry(flow(4)) == row(one, 4, 1)


def test_it_counts_as_by_the_id_and_as_a_new_flow_once() -> None:
    one = mux()
    for _ in range(3):
        target(one, 4, quic(1))
    counted = dict(zip(LOOKUPS, one.tables.lookups[0], strict=False))
    assert (counted["server_id"], counted["new"], counted["hit"]) == (3, 1, 2)
