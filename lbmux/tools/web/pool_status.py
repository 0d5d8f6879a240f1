"""The pool's document for the page: the answers of all muxes, with rates between two polls."""

from collections.abc import Sequence
from typing import Any

from lbmux.api.channel import target_name
from lbmux.api.counter_rates import drop_rates
from lbmux.tools.web.mux_status import MuxStatus, traffic
from lbmux.tools.web.service_status import services_of
from lbmux.tools.web.web_routers import sessions_of, vips_of


def document(now: Sequence[MuxStatus], before: Sequence[MuxStatus]) -> dict[str, Any]:
    """Return the whole pool as plain JSON.  ``before``: the previous poll of the same muxes.

    ``unknown``: muxes that are in no sum, because they did not answer one of the two polls.  Their kernel programs may
    still forward.
    """
    earlier = {one.place: one for one in before if not one.error}
    pairs = [(one, earlier.get(one.place)) for one in now]
    services, sessions = services_of(pairs), sessions_of(now)
    return {
        "version": 1,
        "unknown": [one.name for one, last in pairs if one.error or last is None],
        "routers": list(dict.fromkeys(session["router"] for session in sessions)),
        "sessions": sessions,
        "vips": vips_of(services, now),
        "muxes": [_mux(one, last) for one, last in pairs],
        "edges": [edge for one, last in pairs for edge in _edges(one, last)],
        "services": services,
        "out": [
            {"mux": one.name} | {key: getattr(line, key) for key in ("service", "backend", "state", "reason")}
            for one in now
            for line in one.health
            if line.state != "up"
        ],
    }


def _mux(now: MuxStatus, before: MuxStatus | None) -> dict[str, Any]:
    line: dict[str, Any] = {
        "name": now.name,
        "socket": str(target_name(now.place)),
        "error": now.error,
        "packets_per_s": None,
    }
    if now.runtime is None:
        return line
    drops = drop_rates((before or now).counters, now.counters)
    flows = now.runtime.tables["flows"]
    return line | {
        "addresses": now.runtime.addresses,
        "driver": now.runtime.driver,
        "uptime_s": now.runtime.uptime_s,
        "flows": flows.used,
        "flow_rows": flows.rows,
        # Sum the backends, so that the figures agree: the verdict's counter is read at another time.
        "packets_per_s": before and round(sum(rates["packets_per_s"] for _, rates in traffic(now, before)), 1),
        "drops_per_s": {verdict: round(rate, 1) for verdict, rate in drops.items()},
    }


def _edges(now: MuxStatus, before: MuxStatus | None) -> list[dict[str, Any]]:
    """Edges from this mux to each host, summed over its backends.  ``serves``: whether one of them is in the tables."""
    edges: dict[str, dict[str, Any]] = {
        host: {
            "mux": now.name, "host": host, "serves": False, "reachable": True, "packets_per_s": 0.0,
            "bytes_per_s": 0.0,
        }
        for host in [*(line.host for line in now.backends), *(line.host for line in now.health)]
    }  # fmt: skip
    for line, rates in traffic(now, before):
        edge = edges[line.host]
        edge["serves"] = True
        edge["reachable"] &= bool(line.reachable)
        for key in ("packets_per_s", "bytes_per_s"):
            edge[key] = round(edge[key] + rates[key], 1)
    return list(edges.values())
