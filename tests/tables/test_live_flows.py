"""Which entries count as live, and how they are picked, sorted and described."""

from typing import Any

import numpy as np
import pytest

from lbmux.datapath.tables import FLOW, TRUSTED, UNTRUSTED
from lbmux.tables import live_flows
from lbmux.tables.flow_filter import parse
from lbmux.tables.live_flows import SortError
from tests.linux.inside import CONFIG, Inside, agent_with_a_flow, client, dns


def sources(inside: Inside, sort: str, limit: int | None = None) -> list[int]:
    return [line["source_port"] for line in live_flows.describe(live_flows.select(inside.snapshot, None, sort, limit))]


def test_an_idle_flow_does_not_count() -> None:
    inside = Inside()
    inside.send(client(1), before_ticks=4_000_000)  # idle for over an hour, the limit
    inside.send(client(2))
    assert sources(inside, "") == [2]


def test_a_flow_whose_backend_is_gone_does_not_count() -> None:
    inside = Inside()
    inside.send(dns())
    assert live_flows.count(inside.snapshot) == 1
    inside.tables.backends["state"][inside.snapshot.rows["dns", "h1"]] = 0
    assert live_flows.count(inside.snapshot) == 0


def test_a_flow_whose_packets_come_by_several_workers_counts_once() -> None:
    inside = Inside(workers=3)
    for worker in range(3):
        inside.send(client(1), client(2 + worker), worker=worker)
    assert live_flows.count(inside.snapshot) == 4


@pytest.mark.parametrize(
    ("sort", "expected"),
    [("port", [1, 2, 256]), ("-port", [256, 2, 1]), ("idle", [256, 1, 2]), ("source", [2, 1, 256])],
)
def test_sorted_by_what_people_read(sort: str, expected: list[int]) -> None:
    inside = Inside()
    inside.send(client(2, host=1), before_ticks=200)
    inside.send(client(1, host=2), before_ticks=100)
    inside.send(client(256, host=9))
    assert sources(inside, sort) == expected
    assert sources(inside, sort, limit=2) == expected[:2]


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(SortError, match="idle, source, port"):
        live_flows.select(Inside().snapshot, None, "size")


def test_a_flow_as_people_read_it() -> None:
    inside = Inside()
    frames = inside.send(client(), client())
    (line,) = live_flows.describe(live_flows.select(inside.snapshot))
    backend = inside.snapshot.owners[int(frames.target[0])][1].name
    assert 0 <= line.pop("idle_s") < 1
    assert line == {
        "protocol": "tcp", "source": "198.51.100.7", "source_port": 40000, "destination": "192.0.2.1",
        "destination_port": 80, "service": "web", "backend": backend, "state": "trusted",
    }  # fmt: skip


def test_a_flow_at_an_agent_has_vip_and_port_as_its_destination() -> None:
    (line,) = live_flows.describe(live_flows.select(agent_with_a_flow()))
    assert (line["destination"], line["destination_port"], line["backend"]) == ("192.0.2.1", 80, "h1")


def ported(service: str, **ports: Any) -> dict[str, Any]:
    """The configuration, with other ports of a service."""
    services = [one | (ports if one["name"] == service else {}) for one in CONFIG["services"]]
    return CONFIG | {"services": services}


@pytest.mark.parametrize("ports", [{"port": "any"}, {"port": 1000, "port_to": 1999}])
def test_a_flow_has_its_own_port_where_the_service_has_many(ports: dict[str, Any]) -> None:
    config = ported("web", **ports)
    inside = Inside(config)
    inside.send(client(destination_port=1234))
    moments = [inside.snapshot, agent_with_a_flow(config, 1234, "10.1.2.2")]  # h2, which has no port of its own
    for snapshot in moments:
        (line,) = live_flows.describe(live_flows.select(snapshot))
        assert (line["destination_port"], line["service"]) == (1234, "web")
        counts = [live_flows.count(snapshot, parse(f"dst {text}", snapshot)) for text in
                  ("port 1234", "portrange 1230-1240", "port 1000", "port 80", "port 0")]  # fmt: skip
        assert counts == [1, 1, 0, 0, 0]


def test_by_backend_and_state() -> None:
    inside = Inside()
    inside.send(dns(1), dns(2), dns(2))
    counts = live_flows.by_backend(inside.snapshot)[inside.snapshot.rows["dns", "h1"]]
    assert (counts[UNTRUSTED], counts[TRUSTED]) == (1, 1)


def test_a_short_list_of_many_is_that_of_all_sorted() -> None:
    """The flows span several chunks, and the limit cuts the list between them; the entries are written by hand, as by a
    flood.
    """
    inside = Inside(CONFIG | {"flows": {"limit": 1 << 17}}, workers=1)
    places = inside.tables.flows.reshape(-1)
    pick = np.random.default_rng(1)
    row, rows = inside.snapshot.rows["dns", "h1"], np.zeros(len(places), FLOW)
    rows["low"], rows["state"], rows["target"] = 0xFFFF0000, TRUSTED, row
    rows["owner"] = inside.tables.backends[row]["service"]
    idle = pick.integers(1000, 200_000, len(places))
    rows["seen"] = (inside.now - idle) & 0xFFFFFFFF
    places[:] = rows
    flows = live_flows.select(inside.snapshot, parse("idle > 0.5", inside.snapshot), "-idle", 100)
    expected = np.sort(idle)[::-1][:100]
    assert live_flows.count(inside.snapshot) == len(places) > 4 * live_flows.CHUNK_PLACES
    assert np.all(np.abs(flows.idle_ticks() - expected) < 1000)  # the clock has advanced a little
    assert np.all(np.diff(flows.idle_ticks()) <= 0)


def test_a_long_list_is_described_in_parts_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = Inside()
    inside.send(*(client(port) for port in range(3000, 3020)))
    monkeypatch.setattr(live_flows, "DESCRIBED_FLOWS", 7)
    assert sources(inside, "port") == list(range(3000, 3020))
