"""Poll the muxes of a pool over their control sockets.

Only control sockets are used, so polling does not touch the data path.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lbmux.api.answers import BackendLine, Bgp, BgpNeighbour, HealthLine, History, Runtime, ServiceLine, VerdictLine
from lbmux.api.channel import ControlTarget
from lbmux.api.control_client import ControlClient
from lbmux.api.counter_rates import CounterSnapshot, TrafficRates, backend_rates
from lbmux.api.requests import GetBackends, GetBgp, GetCounters, GetHealth, GetHistory, GetRuntime, GetServices
from lbmux.errors import ControlError

TIMEOUT_S, DETAILS_TIMEOUT_S = 5.0, 30.0
"""Longest waits for an answer of bounded size, and for one that grows with the pool."""


@dataclass(frozen=True)
class MuxStatus:
    """A mux's answers, or ``error`` if it does not answer."""

    name: str
    place: ControlTarget
    at: float
    error: str = ""
    runtime: Runtime | None = None
    services: Sequence[ServiceLine] = ()
    backends: Sequence[BackendLine] = ()
    verdicts: Sequence[VerdictLine] = ()
    health: Sequence[HealthLine] = ()
    """Health of all backends in the file.  ``backends`` has only those in the tables."""
    bgp: Bgp | None = None
    """The BGP status; None if the mux does not use BGP."""

    @property
    def neighbours(self) -> Sequence[BgpNeighbour]:
        return _neighbours(self.bgp)

    @property
    def counters(self) -> CounterSnapshot:
        return CounterSnapshot(self.at, self.backends, self.verdicts)


@dataclass(frozen=True)
class MuxSummary:
    """A mux's answers that take it little time, whatever its pool's size, or ``error`` if it does not answer."""

    name: str
    place: ControlTarget
    error: str = ""
    runtime: Runtime | None = None
    bgp: Bgp | None = None
    history: History | None = None

    @property
    def neighbours(self) -> Sequence[BgpNeighbour]:
        return _neighbours(self.bgp)


def _neighbours(bgp: Bgp | None) -> Sequence[BgpNeighbour]:
    """Return the sessions; empty if the mux does not use BGP."""
    return bgp.neighbours if bgp else ()


def poll_summary(name: str, place: ControlTarget, since: float) -> MuxSummary:
    """Poll one mux for its totals, and for its history after ``since`` in seconds since 1970."""
    client = ControlClient(place, TIMEOUT_S)
    try:
        runtime = client.ask(GetRuntime())
        if runtime.program != "mux":
            return MuxSummary(name, place, f"is the socket of the {runtime.program}, not of a mux")
        return MuxSummary(name, place, "", runtime, _bgp(client), _history(client, since))
    except ControlError as error:
        return MuxSummary(name, place, error.reason)


def poll(name: str, place: ControlTarget) -> MuxStatus:
    """Poll one mux for all that it knows of its services and backends."""
    now, client = time.monotonic(), ControlClient(place, DETAILS_TIMEOUT_S)
    try:
        runtime = client.ask(GetRuntime())
        if runtime.program != "mux":
            return MuxStatus(name, place, now, f"is the socket of the {runtime.program}, not of a mux")
        services = client.whole(GetServices()).services
        now = time.monotonic()  # the time of the counters, which are read next
        backends, verdicts = client.whole(GetBackends()).backends, client.ask(GetCounters()).verdicts
        health = client.whole(GetHealth()).health
        return MuxStatus(name, place, now, "", runtime, services, backends, verdicts, health, _bgp(client))
    except ControlError as error:
        return MuxStatus(name, place, now, error.reason)


def _bgp(client: ControlClient) -> Bgp | None:
    try:
        return client.ask(GetBgp())
    except ControlError:  # it answers other requests, so it runs without BGP
        return None


def _history(client: ControlClient, since: float) -> History | None:
    try:
        return client.ask(GetHistory(since))
    except ControlError:  # it answers other requests, so its version has no history
        return None


def traffic(now: MuxStatus, before: MuxStatus | None) -> Iterator[tuple[BackendLine, dict[str, float]]]:
    """Yield each backend with its rates, rounded; 0 without an earlier poll."""
    rates = backend_rates((before or now).counters, now.counters)
    for line in now.backends:
        yield line, _shown(rates[line.key])


def _shown(rates: TrafficRates) -> dict[str, float]:
    return {f"{name}_per_s": round(rate or 0.0, 1) for name, rate in vars(rates).items()}
