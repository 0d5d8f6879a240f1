"""Several muxes in a replay: where flows go, and what reloads and losses do to them."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from lbmux.config.models import Config
from lbmux.tools.replay.flow_outcomes import Effect
from lbmux.tools.replay.looped_capture import LoopedCapture
from lbmux.tools.replay.replay import Count, FlowCounts, ReplayMux, Result, replay
from lbmux.tools.replay.replay_changes import Change, Loss, Reload, Timeline, UnusableChangeError
from lbmux.tools.replay.replay_pool import ReplayPool, replay_pool
from tests.frames.captures import pcap, record
from tests.tools.replay.test_replay import HOP, LOCAL, config, frame

ETHER = Ether(src="02:00:00:00:00:07", dst="02:00:00:00:00:08")

SECOND_NS = 10**9
FLOWS, SECONDS = 100, 12
packet = lru_cache(2 * FLOWS)(frame)


def capture(directory: Path, flows: int = FLOWS) -> Path:
    """A packet of each flow every second from second 100 on; the first is a SYN."""
    path = directory / "in"
    syns, acks = ([packet(1024 + flow, flags=flags) for flow in range(flows)] for flags in "SA")
    frames = [record(data, 100 + second) for second in range(SECONDS) for data in (acks if second else syns)]
    path.write_bytes(pcap(*frames))
    return path


def altered(configuration: Config, **changes: Any) -> Config:
    """The configuration with other values in its mapping."""
    return Config.model_validate(configuration.model_dump(exclude_unset=True) | changes)


def run(path: Path, *changes: Change, muxes: int = 1, configuration: Config | None = None) -> tuple[Result, ReplayPool]:
    pool = ReplayPool(configuration or config(), [LOCAL], HOP, muxes)
    with LoopedCapture(path) as looped:
        return replay_pool(looped, pool, Timeline(changes)), pool


def reload(configuration: Config, at_s: int = 5) -> Reload:
    return Reload(at_s * SECOND_NS, Path("new.yaml"), configuration)


def without(configuration: Config, name: str) -> Config:
    (service,) = configuration.services
    left = tuple(backend for backend in service.backends if backend.name != name)
    return configuration.model_copy(update={"services": (service.model_copy(update={"backends": left}),)})


def test_one_mux_without_changes_is_a_plain_replay(tmp_path: Path) -> None:
    path = capture(tmp_path)
    result, _ = run(path)
    with LoopedCapture(path) as looped:
        plain = replay(looped, ReplayMux(config(), [LOCAL], HOP))
    names = ("packets", "bytes", "verdicts", "backends")
    assert [getattr(result, name) for name in names] == [getattr(plain, name) for name in names]
    assert result.flows == FlowCounts(FLOWS, 0, 0)
    assert sum(result.lookups.values()) == sum(plain.lookups.values())


def test_muxes_share_the_flows_and_their_counts_add_up(tmp_path: Path) -> None:
    path = capture(tmp_path)
    one, _ = run(path)
    three, _ = run(path, muxes=3)
    assert {name: getattr(three, name) for name in ("verdicts", "backends", "flows")} == {
        name: getattr(one, name) for name in ("verdicts", "backends", "flows")
    }
    assert [*three.muxes] == ["mux1", "mux2", "mux3"]
    assert sum(three.muxes.values(), Count(0, 0)) == Count(one.packets, one.bytes)
    assert all(count.packets % SECONDS == 0 and count.packets > FLOWS for count in three.muxes.values())


def test_lost_mux_gets_nothing_and_only_its_flows_move(tmp_path: Path) -> None:
    path = capture(tmp_path)
    before, _ = run(path, muxes=3)
    after, _ = run(path, Loss(6 * SECOND_NS, 0), muxes=3)
    assert after.muxes["mux1"].packets * 2 == before.muxes["mux1"].packets
    moved = [after.muxes[name].packets - before.muxes[name].packets for name in ("mux2", "mux3")]
    assert sum(moved) == after.muxes["mux1"].packets and min(moved) > 0
    assert [(each.at_s, each.change) for each in after.changes] == [(6, "mux1 lost")]
    assert after.changes[0].effect == Effect(FLOWS, 0, 0, 0)


def test_new_backend_breaks_no_flow_that_a_mux_remembers(tmp_path: Path) -> None:
    result, _ = run(capture(tmp_path), reload(config(3)), muxes=2)
    assert result.changes[0].effect == Effect(FLOWS, 0, 0, 0)
    assert list(result.backends) == ["web/h1", "web/h2", "web/h3"]


def test_loss_after_a_reload_breaks_no_connection(tmp_path: Path) -> None:
    """The time of the reload is the capture's: the flows' former slots still count."""
    result, _ = run(capture(tmp_path), reload(config(3)), Loss(8 * SECOND_NS, 1), muxes=2)
    assert [each.effect.broken for each in result.changes] == [0, 0]
    assert result.backends["web/h3"].packets == 0


def test_flows_that_no_mux_remembers_break_with_another_hash(tmp_path: Path) -> None:
    changes = reload(altered(config(), maglev={"seed": 2})), Loss(8 * SECOND_NS, 0)
    result, pool = run(capture(tmp_path), *changes, muxes=2)
    assert result.flows is not None and 5 < result.flows.broken < FLOWS
    assert sum(each.effect.broken for each in result.changes) >= result.flows.broken
    assert sum(len(backends) > 1 for backends in pool.outcomes.backends()) == result.flows.broken


def test_removed_backend_keeps_its_flows(tmp_path: Path) -> None:
    before, _ = run(capture(tmp_path), configuration=config(3))
    result, _ = run(capture(tmp_path), reload(without(config(3), "h1")), configuration=config(3))
    assert result.changes[0].effect == Effect(FLOWS, 0, 0, before.backends["web/h1"].packets // SECONDS)
    assert result.backends == before.backends


def test_flows_of_a_removed_service_are_lost(tmp_path: Path) -> None:
    (service,) = config().services
    other = config().model_copy(update={"services": (service.model_copy(update={"port": 81}),)})
    result, _ = run(capture(tmp_path), reload(other))
    assert result.changes[0].effect == Effect(FLOWS, 0, FLOWS, 0)
    assert result.verdicts["not_vip"].packets == FLOWS * 7
    assert result.flows == FlowCounts(FLOWS, 0, FLOWS)


def test_row_that_another_backend_gets_is_counted_for_each(tmp_path: Path) -> None:
    """The second configuration has other servers on the same hosts, so the first ones leave at once."""
    (service,) = config(1).services
    (backend,) = service.backends
    other = service.model_copy(update={"backends": (backend.model_copy(update={"port": 8080, "name": "new"}),)})
    result, _ = run(
        capture(tmp_path), reload(config().model_copy(update={"services": (other,)})), configuration=config(1)
    )
    assert {name: count.packets for name, count in result.backends.items()} == {"web/h1": 500, "web/new": 700}
    assert result.changes[0].effect == Effect(FLOWS, 0, FLOWS, 0)


def test_udp_flow_is_another_one_after_the_idle_timeout_of_its_service(tmp_path: Path) -> None:
    service = {"name": "dns", "vip": "192.0.2.2", "protocol": "udp", "port": 53, "backends": [{"dip": "10.1.1.2"}]}
    configuration = Config.model_validate({"services": [service | {"idle": {"udp_s": 5}}]})
    data = bytes(ETHER / IP(dst="192.0.2.2") / UDP(sport=1024, dport=53))
    (tmp_path / "in").write_bytes(pcap(*(record(data, second) for second in (0, 5, 11))))
    result, _ = run(tmp_path / "in", configuration=configuration)
    assert result.flows == FlowCounts(2, 0, 0)


def test_configuration_that_does_not_fit_names_file_and_time(tmp_path: Path) -> None:
    (service,) = config().services
    ports = altered(config(), services=[service.model_dump(exclude={"name"}) | {"name": "many", "port": "any"}])
    many = ports.services[0].model_copy(update={"port": 1, "port_to": 65535})
    with pytest.raises(
        UnusableChangeError, match=r"new\.yaml: cannot come into force at 5 s of the capture: addresses"
    ):
        run(capture(tmp_path, 1), reload(ports.model_copy(update={"services": (many,)})))


def test_nothing_captured(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(pcap())
    result, _ = run(tmp_path / "in", muxes=2)
    assert replace(result, seconds=0.0, lookups={}) == Result(
        0, 0, 0.0, None, {}, {"web/h1": Count(0, 0), "web/h2": Count(0, 0)},
        muxes={"mux1": Count(0, 0), "mux2": Count(0, 0)}, flows=FlowCounts(0, 0, 0),
    )  # fmt: skip
