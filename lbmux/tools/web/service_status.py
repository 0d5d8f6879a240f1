"""The services of a pool with all their backends, including those out of service, summed over the muxes."""

from collections.abc import Sequence
from typing import Any

from lbmux.api.answers import BackendLine, HealthLine
from lbmux.api.counter_rates import NAMES
from lbmux.tools.web.mux_status import MuxStatus, traffic


def services_of(pairs: Sequence[tuple[MuxStatus, MuxStatus | None]]) -> list[dict[str, Any]]:
    """Each service once, summed over the muxes.  ``agree``: whether all muxes have the same Maglev table."""
    services: dict[str, dict[str, Any]] = {}
    for now, before in pairs:
        for shown in now.services:
            service = services.setdefault(
                shown.service,
                {key: getattr(shown, key) for key in ("service", "vip", "protocol", "port", "slots")}
                | {"digests": [], "live_flows": 0, "backends": {}},
            )
            service["digests"].append(shown.digest)
            service["live_flows"] += shown.live_flows
        for state in now.health:
            if state.service in services:  # the service may be new since the first answer
                _add_health(services[state.service]["backends"], now.name, state)
        for line, rates in traffic(now, before):
            backend = services[line.service]["backends"].get(line.backend)
            if backend is not None:
                _add_traffic(backend, line, rates)
    return [
        service | {"agree": len(set(service["digests"])) == 1, "backends": list(service["backends"].values())}
        for service in services.values()
    ]


def _add_health(backends: dict[str, dict[str, Any]], mux: str, line: HealthLine) -> None:
    """Add a mux's health state of a backend, grouped with muxes that report the same."""
    same = ("backend", "dip", "port", "host", "weight")
    backend = backends.setdefault(
        line.backend,
        {key: getattr(line, key) for key in same}
        | {"health": [], "reachable": True, "live_flows": 0}
        | {f"{key}_per_s": 0.0 for key in NAMES},
    )
    for entry in backend["health"]:
        if (entry["state"], entry["reason"]) == (line.state, line.reason):
            entry["muxes"].append(mux)
            return
    backend["health"].append({"state": line.state, "reason": line.reason, "muxes": [mux]})


def _add_traffic(backend: dict[str, Any], line: BackendLine, rates: dict[str, float]) -> None:
    backend["reachable"] &= bool(line.reachable)
    backend["live_flows"] += line.live_flows
    for key, rate in rates.items():
        backend[key] = round(backend[key] + rate, 1)
