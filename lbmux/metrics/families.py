"""The Prometheus metrics of a mux or agent: reads the tables at the time of a scrape.

This runs in a thread, off the packet path.  Families with a line per backend are formatted in bulk, since the client
library takes half a second for 10,000 backends; it formats all others.  No label has a client's address.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from lbmux import __version__
from lbmux.api import status_tables
from lbmux.api.answers import Overload
from lbmux.api.status_tables import marked_slots
from lbmux.bgp.bgp_settings import ESTABLISHED
from lbmux.config.models import Backend, Service
from lbmux.datapath.tables import UP
from lbmux.metrics.loop_histograms import COST_BITS, SAMPLE, SIZE_BITS, STEPS, LoopHistograms, cumulative
from lbmux.tables import live_flows
from lbmux.tables.snapshot import Snapshot

TRAFFIC = {
    "packets": ("lbmux_forwarded_packets_total", "Packets that this mux sent to a backend."),
    "bytes": ("lbmux_forwarded_bytes_total", "Bytes that this mux sent to a backend, outer headers included."),
    "flows": ("lbmux_new_flows_total", "New flows of a backend, including those beyond a rate limit."),
    "admitted": ("lbmux_admitted_flows_total", "New flows of a backend that were within the service's rate limits."),
}
"""Maps a field of the traffic table to its family and help."""
KINDS = {
    "send": ("lbmux_sent_packets_total", "Packets that were forwarded or answered.", "verdict"),
    "pass": ("lbmux_passed_packets_total", "Packets that were left to the kernel's stack.", "reason"),
    "drop": ("lbmux_dropped_packets_total", "Packets that were dropped.", "reason"),
}
"""Maps the kind of a verdict to its family, help and label."""
ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass(frozen=True)
class Reading:
    """State that the event loop provides for a scrape; a thread reads the tables later."""

    snapshot: Snapshot
    in_kernel: bool = False
    ring_dropped: int = 0
    loop_histograms: LoopHistograms | None = None
    """None if the program has no packet loop in user space."""
    peers: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """The state of each BGP session, and the reason if it is not established."""
    wanted: Sequence[Service] = ()
    """The services of the configuration file. ``snapshot`` has only backends that are neither down nor disabled."""
    overload: Overload | None = None
    """None for an agent."""


def exposition(reading: Reading) -> bytes:
    """Return all families in the Prometheus text format, version 0.0.4."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Families(reading))
    return generate_latest(registry) + "".join(_by_backend(reading)).encode()


class Families(Collector):
    """The families that have few lines."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that the registry does not read all tables to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families of the reading; the Prometheus client calls this for a scrape."""
        reading = self._reading
        build = GaugeMetricFamily("lbmux_build_info", "Always 1.", labels=["version", "program"])
        build.add_metric([__version__, reading.snapshot.program], 1)
        yield build
        verdicts = status_tables.verdicts(reading.snapshot, reading.in_kernel)
        for kind, (name, help, label) in KINDS.items():
            lines = {line.verdict: line.packets for line in verdicts if line.kind == kind}
            yield _counter(name, help, label, lines)
        lookups = status_tables.lookups(reading.snapshot)
        yield _counter("lbmux_lookups_total", "Look-ups in the flow table.", "result", lookups)
        yield CounterMetricFamily(
            "lbmux_ring_dropped_frames_total", "Frames lost because the packet ring was full.", reading.ring_dropped
        )
        if reading.overload is not None:
            yield from _of_overload(reading.overload)
        if reading.loop_histograms is not None:
            yield from _of_loop(reading.loop_histograms)
        if reading.peers:
            up = GaugeMetricFamily("lbmux_bgp_up", "Whether the BGP session is established.", labels=["peer"])
            session = GaugeMetricFamily(
                "lbmux_bgp_session", "Always 1; labels: the BGP session's state, and why it is not established.",
                labels=["peer", "state", "reason"],
            )  # fmt: skip
            for peer, (state, reason) in reading.peers.items():
                up.add_metric([peer], state == ESTABLISHED)
                session.add_metric([peer, state, reason], 1)
            yield from (up, session)


def _of_overload(overload: Overload) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "lbmux_overloaded", "Whether this mux gets more packets than it can forward.",
        overload.seconds is not None,
    )  # fmt: skip
    yield CounterMetricFamily("lbmux_overloads_total", "How often this mux became overloaded.", overload.times)
    yield CounterMetricFamily(
        "lbmux_overload_dropped_packets_total",
        "Packets beyond their VIP's fair share that were dropped before the ring, as estimated.",
        overload.dropped,
    )
    yield GaugeMetricFamily(
        "lbmux_black_holed_vips", "VIPs whose packets this mux drops because they are flooded.",
        len(overload.black_holes),
    )  # fmt: skip
    yield CounterMetricFamily(
        "lbmux_black_holes_total", "How often this mux has made a flooded VIP a black hole.",
        overload.black_holes_begun,
    )  # fmt: skip


def _of_loop(loop_histograms: LoopHistograms) -> Iterator[Metric]:
    yield HistogramMetricFamily(
        "lbmux_batch_frames", "Frames per batch read from the packet ring.",
        buckets=cumulative(loop_histograms.sizes, range(1, SIZE_BITS + 1)), sum_value=loop_histograms.frames,
    )  # fmt: skip
    help = f"Time per frame that a step takes, measured in one of {SAMPLE} batches."
    costs = HistogramMetricFamily("lbmux_step_seconds", help, labels=["step"])
    for step in STEPS:
        costs.add_metric(
            [step], cumulative(loop_histograms.costs[step], COST_BITS, 1e-9), loop_histograms.cost_ns[step] * 1e-9
        )
    yield costs


def _counter(name: str, help: str, label: str, lines: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, help, labels=[label])
    for value, count in lines.items():
        family.add_metric([value], count)
    return family


def _by_backend(reading: Reading) -> Iterator[str]:
    """Yield the families of services and backends; an agent does not count traffic by backend."""
    snapshot = reading.snapshot
    tables, owners = snapshot.tables, snapshot.owners
    rows = np.array(list(owners), np.int64)
    labels = _labels(owners.values())
    if not snapshot.is_agent:
        for key, (name, help) in TRAFFIC.items():
            yield _family(name, "counter", help, labels, tables.traffic[key][:, rows].sum(0))
        yield _marked_slots(snapshot)
    yield from _states(snapshot, reading.wanted or snapshot.services)
    yield _flows(snapshot)


def _marked_slots(snapshot: Snapshot) -> str:
    labels = [f'{{service="{_text(service.name)}"}} ' for service in snapshot.services]
    values = np.array([marked_slots(snapshot, service) for service in snapshot.services], np.int64)
    return _family("lbmux_marked_slots", "gauge", "Maglev slots whose flows are looked up.", labels, values)


def _states(snapshot: Snapshot, wanted: Iterable[Service]) -> Iterator[str]:
    """Yield the states of all backends in the file, including backends that are down, which have no row."""
    backends = [(service, backend) for service in wanted for backend in service.backends]
    rows = np.array([snapshot.rows.get((service.name, backend.name), -1) for service, backend in backends], np.int64)
    states = (snapshot.tables.endpoints if snapshot.is_agent else snapshot.tables.backends)["state"][rows]
    labels, weights = _labels(backends), np.array([backend.weight for _, backend in backends], np.int64)
    is_up = (rows >= 0) & (states == UP)
    yield _family("lbmux_backend_up", "gauge", "Whether a backend gets new flows.", labels, is_up)
    yield _family(
        "lbmux_backend_weight", "gauge", "A backend's weight, by the file, by command or by load.", labels, weights
    )


def _labels(backends: Iterable[tuple[Service, Backend]]) -> list[str]:
    return [f'{{service="{_text(service.name)}",backend="{_text(backend.name)}"}} ' for service, backend in backends]


def _flows(snapshot: Snapshot) -> str:
    """Return live flows by service and state; for counts by backend see `lbmux show backends`."""
    flows, services = live_flows.by_backend(snapshot), snapshot.services
    sums = [
        flows[[snapshot.rows[service.name, backend.name] for backend in service.backends]].sum(0)
        for service in services
    ]
    labels = [
        f'{{service="{_text(service.name)}",state="{state}"}} '
        for service in services
        for state in live_flows.STATES.values()
    ]
    values = np.reshape(sums, (len(services), flows.shape[1]))[:, list(live_flows.STATES)].reshape(-1)
    return _family("lbmux_flows", "gauge", "Live flows.", labels, values)


def _family(name: str, kind: str, help: str, labels: Sequence[str], values: NDArray[Any]) -> str:
    lines = [f"{name}{label}{value}\n" for label, value in zip(labels, values.astype(np.int64).tolist(), strict=True)]
    return f"# HELP {name} {help}\n# TYPE {name} {kind}\n{''.join(lines)}"


def _text(name: str) -> str:
    return name.translate(ESCAPES)
