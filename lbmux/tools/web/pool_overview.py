"""The page's overview: a pool of any size in a document of bounded size."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lbmux.api.channel import target_name
from lbmux.tools.web.mux_status import MuxSummary
from lbmux.tools.web.pool_history import PoolHistory
from lbmux.tools.web.pool_lists import service_lines
from lbmux.tools.web.pool_problems import by_severity, mux_problems, service_problems, severity_of_backend
from lbmux.tools.web.web_routers import sessions_of

MOST_PROBLEMS, MOST_BUSIEST = 50, 8


def services_overview(services: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the overview needs of a pool's services (pool_status); it takes time in proportion to the pool."""
    backends = [backend for service in services for backend in service["backends"]]
    return {
        "counts": {
            "services": len(services),
            "backends": len(backends),
            "hosts": len({backend["host"] for backend in backends}),
            "severities": Counter(severity_of_backend(backend) for backend in backends),
        },
        "busiest": sorted(service_lines(services), key=lambda line: -float(line["packets_per_s"]))[:MOST_BUSIEST],
        "problems": by_severity([*service_problems(services)]),
    }


def overview(
    summaries: Sequence[MuxSummary], history: PoolHistory, services: Mapping[str, Any] | None, since: int
) -> dict[str, Any]:
    """Return the overview, with the history after ``since``.

    ``services``: their part (``services_overview``), or None before they have been read.  ``unknown``: muxes that are
    in no sum, because they do not answer or have no history yet; their kernel programs may still forward.
    """
    names = [one.name for one in summaries]
    muxes, sessions = [mux_line(one, history) for one in summaries], sessions_of(summaries)
    problems = by_severity([*mux_problems(muxes, sessions), *(services["problems"] if services else ())])
    return {
        "version": 1,
        "muxes": muxes,
        "sessions": sessions,
        "unknown": [one["name"] for one in muxes if one["packets_per_s"] is None],
        "points": history.points([one.name for one in summaries if not one.error], since),
        "events": history.events(names, since),
        "counts": services and services["counts"],
        "busiest": services["busiest"] if services else [],
        "problems": problems[:MOST_PROBLEMS],
        "problem_counts": Counter(one["severity"] for one in problems),
    }


def mux_line(one: MuxSummary, history: PoolHistory) -> dict[str, Any]:
    """Return a mux's figures; rates are those of its last second, None if unknown."""
    point = None if one.error else history.latest(one.name)
    line: dict[str, Any] = {"name": one.name, "socket": str(target_name(one.place)), "error": one.error}
    line |= {
        "packets_per_s": point and point.packets,
        "bytes_per_s": point and point.bytes,
        "new_flows_per_s": point and point.new_flows,
        "drops_per_s": point and sum(point.drops.values()),
    }
    if one.runtime is None:
        return line
    flows = one.runtime.tables["flows"]
    return line | {
        "addresses": one.runtime.addresses,
        "driver": one.runtime.driver,
        "uptime_s": one.runtime.uptime_s,
        "flows": flows.used,
        "flow_rows": flows.rows,
    }
