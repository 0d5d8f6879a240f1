"""Rate limits of services, on tables that a configuration makes."""

from collections import Counter
from typing import Any

import pytest

from lbmux.datapath.tables import FLOW_RATE
from lbmux.datapath.verdicts import Verdict
from lbmux.targets.native import Worker
from tests.datapath.craft import ACK, SYN, Craft, quic
from tests.datapath.harness import Frames
from tests.datapath.plain_packet import TCP, UDP
from tests.tables.test_mux_tables import Mux, backend, config, web

FORWARDED, OVER_PACKET_RATE = Verdict.FORWARDED, Verdict.OVER_PACKET_RATE
OVER_FLOW_RATE, OVER_FLOW_SHARE = Verdict.OVER_FLOW_RATE, Verdict.OVER_FLOW_SHARE
BURST_S, TICKS_A_SECOND = 1024 * 2**20 / 1e9, 954
VERSION_2, UNKNOWN_VERSION = b"\x6b\x33\x43\xcf", b"\x0a\x0a\x0a\x0a"


def run(mux: Mux, crafts: list[Craft], now: int = 1, worker: Worker | None = None) -> list[Verdict]:
    batch = Frames([craft.frame() for craft in crafts])
    (worker or mux.worker).forward(batch, now)
    return [verdict for verdict, *_ in batch.results()]


def syns(number: int, first: int = 0) -> list[Craft]:
    return [Craft(source=at.to_bytes(4), flags=SYN) for at in range(first, first + number)]


def segments(number: int, first: int = 0) -> list[Craft]:
    return [Craft(source=at.to_bytes(4), flags=ACK) for at in range(first, first + number)]


def datagrams(number: int, payload: bytes = b"", **fields: Any) -> list[Craft]:
    return [Craft(source=at.to_bytes(4), protocol=UDP, payload=payload, **fields) for at in range(number)]


def dns(**limits: int) -> Mux:
    return Mux(config(web(1, 2, 3, **limits) | {"protocol": "udp"}))


@pytest.mark.parametrize("flows", ["all", "changed", "none"])
def test_new_connections_beyond_the_limit_are_dropped_and_established_ones_pass(flows: str) -> None:
    mux = Mux(config(web(1, new_flows_per_s=100, flows=flows)))
    counted = Counter(run(mux, syns(500)))
    most = 100 * BURST_S
    assert counted == {FORWARDED: pytest.approx(most, abs=1), OVER_FLOW_SHARE: pytest.approx(500 - most, abs=1)}
    assert set(run(mux, segments(500))) == {FORWARDED}
    later = Counter(run(mux, syns(500, 1000), now=1 + TICKS_A_SECOND // 2))
    assert later[FORWARDED] == pytest.approx(50, abs=1)
    assert mux.tables.traffic["admitted"].sum() == pytest.approx(most + 50, abs=2)


def test_a_flood_at_one_backend_leaves_the_others_their_share() -> None:
    mux = Mux(config(web(1, 2, new_flows_per_s=200)))
    by_backend: dict[int, list[Craft]] = {1: [], 2: []}
    for craft, number in zip(syns(2000), mux.send(range(2000), flags=ACK), strict=True):
        by_backend[number].append(craft)
    flooded = Counter(run(mux, by_backend[1]))
    assert flooded[FORWARDED] == pytest.approx(100 * BURST_S, abs=1)
    assert set(flooded) == {FORWARDED, OVER_FLOW_SHARE}
    assert set(run(mux, by_backend[2][:100])) == {FORWARDED}


def test_the_service_s_limit_holds_where_shares_are_rounded_up() -> None:
    """A share is at least one flow in a burst, and these are more than the limit together."""
    mux = Mux(config(web(*range(1, 9), new_flows_per_s=2)))
    counted = Counter(run(mux, syns(200)))
    assert counted[FORWARDED] <= 3 and counted[OVER_FLOW_RATE] > 0


def test_packets_beyond_the_limit_are_dropped_new_flows_first() -> None:
    mux = Mux(config(web(1, packets_per_s=1000)))
    half = 1000 * BURST_S / 2
    flood = Counter(run(mux, syns(2000)))
    assert flood == {FORWARDED: pytest.approx(half, abs=1), OVER_PACKET_RATE: pytest.approx(2000 - half, abs=1)}
    established = Counter(run(mux, segments(2000)))
    assert established[FORWARDED] == pytest.approx(half, abs=1)
    assert set(run(mux, syns(10, 5000))) == {OVER_PACKET_RATE}


def test_workers_share_a_limit() -> None:
    loaded = config(web(1, packets_per_s=1000))
    mux = Mux(loaded)
    other = Worker(mux.tables, 0)
    counted = Counter(run(mux, segments(800)) + run(mux, segments(800), worker=other))
    assert counted[FORWARDED] == pytest.approx(1000 * BURST_S, abs=1)


def test_a_datagram_of_a_known_source_is_not_new_until_it_was_silent_for_34_seconds() -> None:
    mux = dns(new_flows_per_s=300)
    verdicts = run(mux, datagrams(600))
    known = [craft.source for craft, verdict in zip(datagrams(600), verdicts, strict=True) if verdict == FORWARDED]
    assert len(known) == pytest.approx(300 * BURST_S, rel=0.1)
    other_port = [Craft(source=source, protocol=UDP, source_port=99) for source in known]
    assert set(run(mux, other_port)) == {FORWARDED}
    assert set(run(mux, other_port, now=31 * 1024)) == {FORWARDED}
    assert set(run(mux, other_port, now=62 * 1024)) == {FORWARDED}, "each datagram makes it known for longer"
    strangers = run(mux, other_port * 2, now=95 * 1024)
    assert OVER_FLOW_SHARE in strangers


def test_known_sources_are_those_of_the_service() -> None:
    two = [web(1, new_flows_per_s=1) | {"protocol": "udp", "name": f"dns{port}", "port": port} for port in (53, 54)]
    mux = Mux(config(*two))
    assert run(mux, datagrams(1, destination_port=53) * 5) == [FORWARDED] * 5
    for port in (53, 54):
        verdicts = run(mux, datagrams(40, destination_port=port))
        assert verdicts.count(FORWARDED) <= 3, "the first, a burst of one, and a chance"


def quic_mux() -> Mux:
    servers = [backend(number) | {"server_id": f"0{number}"} for number in (1, 2)]
    h3 = {"protocol": "udp", "port": 443, "quic": {"rotation": 2, "id_bytes": 1}, "backends": servers}
    return Mux(config(web(1, new_flows_per_s=1) | h3))


@pytest.mark.parametrize(
    ("payload", "is_new"),
    [
        (quic(77, is_long=True), True),
        (b"\xd0" + VERSION_2 + quic(77, is_long=True)[5:], True),
        (b"\xc0" + UNKNOWN_VERSION + quic(77, is_long=True)[5:], True),
        (quic(1, is_long=True), False),
        (b"\xe0" + quic(77, is_long=True)[1:], False),
        (b"\xc0" + VERSION_2 + quic(77, is_long=True)[5:], False),
        (quic(77), False),
        (b"\xc0", False),
    ],
    ids=["Initial", "version 2", "unknown version", "names a server", "Handshake", "0-RTT of version 2", "short",
         "truncated"],
)  # fmt: skip
def test_an_initial_that_names_no_server_begins_a_flow_of_quic(payload: bytes, is_new: bool) -> None:
    verdicts = run(quic_mux(), datagrams(50, payload, destination_port=443))
    assert (verdicts.count(FORWARDED) <= 3) == is_new
    assert is_new or set(verdicts) == {FORWARDED}


def test_a_limit_that_was_unused_for_weeks_is_full() -> None:
    mux = Mux(config(web(1, new_flows_per_s=1)))
    mux.tables.service_rates["full_until"][FLOW_RATE, 0] = 5 << 32
    for weeks in range(1, 8):
        now = weeks * 7 * 86400 * TICKS_A_SECOND & 0xFFFFFFFF
        assert run(mux, syns(1), now=now) == [FORWARDED], weeks


def test_a_reload_changes_the_limit_and_keeps_what_was_taken() -> None:
    mux = Mux(config(web(1, new_flows_per_s=100)))
    run(mux, syns(500))
    mux.load(config(web(1, new_flows_per_s=200)))
    assert set(run(mux, syns(50, 1000))) == {OVER_FLOW_SHARE}
    mux.load(config(web(1)))
    assert set(run(mux, syns(500, 2000))) == {FORWARDED}


def test_other_services_are_not_limited() -> None:
    mux = Mux(config(web(1, new_flows_per_s=1), web(2) | {"name": "other", "port": 81}))
    run(mux, syns(50))
    assert set(run(mux, [Craft(source=at.to_bytes(4), flags=SYN, destination_port=81) for at in range(50)])) == {
        FORWARDED
    }
    assert Craft().protocol == TCP
