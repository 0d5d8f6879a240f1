"""The pool as the page shows it: what every mux says of itself, put together, with rates between two looks.

Only control sockets are asked, so nothing is read in the packets' path and nothing changes.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lbmux.control.control_socket import ask, ask_stream
from lbmux.errors import ControlError

TIMEOUT_S = 5.0
COUNTED = ("packets", "bytes", "new_flows")


@dataclass(frozen=True)
class Look:
    """What one mux said; ``error`` where it said nothing."""

    name: str
    path: Path
    at: float
    error: str = ""
    runtime: dict[str, Any] = field(default_factory=dict)
    services: list[dict[str, Any]] = field(default_factory=list)
    backends: list[dict[str, Any]] = field(default_factory=list)
    verdicts: dict[str, dict[str, Any]] = field(default_factory=dict)
    health: list[dict[str, Any]] = field(default_factory=list)


def names(paths: Sequence[Path]) -> dict[str, Path]:
    """What the page calls the muxes: as their sockets, in full where two would be called the same."""
    stems = [path.stem for path in paths]
    return {path.stem if stems.count(path.stem) == 1 else str(path): path for path in paths}


def look(name: str, path: Path) -> Look:
    """Ask one mux."""
    now = time.monotonic()
    try:
        runtime = ask(path, "runtime", timeout_s=TIMEOUT_S)
        if runtime["program"] != "mux":
            return Look(name, path, now, f"is the socket of the {runtime['program']}, not of a mux")
        counters = ask(path, "counters", timeout_s=TIMEOUT_S)
        return Look(
            name, path, now, "", runtime, _whole(path, "services"), _whole(path, "backends"),
            {line["verdict"]: line for line in counters["verdicts"]},
            ask(path, "health", timeout_s=TIMEOUT_S)["health"],
        )  # fmt: skip
    except ControlError as error:
        return Look(name, path, now, error.reason)


def _whole(path: Path, what: str) -> list[dict[str, Any]]:
    return [line for part in ask_stream(path, what, timeout_s=TIMEOUT_S) for line in part[what]]


def picture(now: Sequence[Look], before: Sequence[Look]) -> dict[str, Any]:
    """The whole pool as plain JSON; ``before``: the last looks at the same muxes, which rates are against."""
    earlier = {one.path: one for one in before if not one.error}
    pairs = [(one, earlier.get(one.path)) for one in now]
    return {
        "version": 1,
        "muxes": [_mux(one, last) for one, last in pairs],
        "edges": [edge for one, last in pairs for edge in _edges(one, last)],
        "services": _services(pairs),
        "out": [
            {"mux": one.name} | {key: line[key] for key in ("service", "backend", "state", "reason")}
            for one in now
            for line in one.health
            if line["state"] != "up"
        ],
    }


def _mux(now: Look, before: Look | None) -> dict[str, Any]:
    line: dict[str, Any] = {"name": now.name, "socket": str(now.path), "error": now.error}
    if now.error:
        return line
    drops = {
        name: rate
        for name, verdict in now.verdicts.items()
        if verdict["kind"] == "drop" and (rate := _rate(now, before, _verdict(now, name), _verdict(before, name)))
    }
    flows = now.runtime["tables"]["flows"]
    forwarded = [_verdict(one, "forwarded") for one in (now, before)]
    return line | {
        "addresses": now.runtime["addresses"],
        "driver": now.runtime["driver"],
        "uptime_s": now.runtime["uptime_s"],
        "flows": flows["used"],
        "flow_rows": flows["rows"],
        "packets_per_s": _rate(now, before, *forwarded),
        "drops_per_s": drops,
    }


def _verdict(of: Look | None, name: str) -> int:
    return int(of.verdicts.get(name, {}).get("packets", 0)) if of else 0


def _rate(now: Look, before: Look | None, count: int | None, last: int | None) -> float:
    """Per second; 0 without an earlier look, and where a counter began anew."""
    if before is None or count is None or last is None or now.at <= before.at:
        return 0.0
    return round(max(0, count - last) / (now.at - before.at), 1)


def _backend_rates(now: Look, before: Look | None) -> Iterable[tuple[dict[str, Any], dict[str, float]]]:
    last = {(line["service"], line["backend"]): line for line in before.backends} if before else {}
    for line in now.backends:
        old = last.get((line["service"], line["backend"]))
        yield line, {f"{key}_per_s": _rate(now, before, line[key], old[key] if old else None) for key in COUNTED}


def _edges(now: Look, before: Look | None) -> list[dict[str, Any]]:
    """From this mux to each host: the sum of the backends there."""
    found: dict[str, dict[str, Any]] = {}
    for line, rates in _backend_rates(now, before):
        edge = found.setdefault(
            line["host"],
            {"mux": now.name, "host": line["host"], "reachable": True, "packets_per_s": 0.0, "bytes_per_s": 0.0},
        )
        edge["reachable"] &= bool(line["reachable"])
        for key in ("packets_per_s", "bytes_per_s"):
            edge[key] = round(edge[key] + rates[key], 1)
    return list(found.values())


def _services(pairs: Sequence[tuple[Look, Look | None]]) -> list[dict[str, Any]]:
    """Each service once, with the sums over the muxes; ``agree``: whether all have the same table."""
    found: dict[str, dict[str, Any]] = {}
    for now, before in pairs:
        for line in now.services:
            service = found.setdefault(
                line["service"],
                {key: line[key] for key in ("service", "vip", "protocol", "port", "slots")}
                | {"digests": [], "live_flows": 0, "backends": {}},
            )
            service["digests"].append(line["digest"])
            service["live_flows"] += line["live_flows"]
        for line, rates in _backend_rates(now, before):
            backends = found[line["service"]]["backends"]
            same = ("backend", "dip", "port", "host", "weight", "state", "reachable")
            backend = backends.setdefault(
                line["backend"], {key: line[key] for key in same} | {"live_flows": 0} | dict.fromkeys(rates, 0.0)
            )
            backend["reachable"] = bool(backend["reachable"] and line["reachable"])
            backend["live_flows"] += line["live_flows"]
            for key, rate in rates.items():
                backend[key] = round(backend[key] + rate, 1)
    return [
        service | {"agree": len(set(service["digests"])) == 1, "backends": list(service["backends"].values())}
        for service in found.values()
    ]
