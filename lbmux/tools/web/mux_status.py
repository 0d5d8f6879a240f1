"""Poll the muxes of a pool over their control sockets.

Only control sockets are used, so polling does not touch the data path.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lbmux.api.answers import BackendLine, Bgp, BgpNeighbour, HealthLine, Runtime, ServiceLine, VerdictLine
from lbmux.api.channel import Place
from lbmux.api.control_client import ControlClient
from lbmux.api.counter_rates import CounterSnapshot, TrafficRates, backend_rates
from lbmux.api.requests import GetBackends, GetBgp, GetCounters, GetHealth, GetRuntime, GetServices
from lbmux.errors import ControlError

TIMEOUT_S = 5.0


@dataclass(frozen=True)
class MuxStatus:
    """A mux's answers, or ``error`` if it does not answer."""

    name: str
    place: Place
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
        """The sessions; empty if the mux does not use BGP."""
        return self.bgp.neighbours if self.bgp else ()

    @property
    def counters(self) -> CounterSnapshot:
        return CounterSnapshot(self.at, self.backends, self.verdicts)


def poll(name: str, place: Place) -> MuxStatus:
    """Poll one mux."""
    now, client = time.monotonic(), ControlClient(place, TIMEOUT_S)
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


def traffic(now: MuxStatus, before: MuxStatus | None) -> Iterator[tuple[BackendLine, dict[str, float]]]:
    """Yield each backend with its rates, rounded; 0 without an earlier poll."""
    rates = backend_rates((before or now).counters, now.counters)
    for line in now.backends:
        yield line, _shown(rates[line.key])


def _shown(rates: TrafficRates) -> dict[str, float]:
    return {f"{name}_per_s": round(rate or 0.0, 1) for name, rate in vars(rates).items()}
