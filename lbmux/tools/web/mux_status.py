"""What each mux of the pool says of itself, and what a second look makes of its counters: rates.

Only control sockets are asked, so nothing is read in the packets' path and nothing changes.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lbmux.api.control_socket import ask, ask_list
from lbmux.errors import ControlError

TIMEOUT_S = 5.0
COUNTED = ("packets", "bytes", "new_flows")


@dataclass(frozen=True)
class MuxStatus:
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
    """Of all backends in the file; ``backends`` are those that have rows in the tables."""
    bgp: dict[str, Any] = field(default_factory=dict)
    """Empty where it announces nothing."""


def names(paths: Sequence[Path]) -> dict[str, Path]:
    """What the page calls the muxes: as their sockets, in full where two would be called the same."""
    stems = [path.stem for path in paths]
    return {path.stem if stems.count(path.stem) == 1 else str(path): path for path in paths}


def poll(name: str, path: Path) -> MuxStatus:
    """Ask one mux."""
    now = time.monotonic()
    try:
        runtime = ask(path, "runtime", timeout_s=TIMEOUT_S)
        if runtime["program"] != "mux":
            return MuxStatus(name, path, now, f"is the socket of the {runtime['program']}, not of a mux")
        services = ask_list(path, "services")
        now = time.monotonic()  # what rates are made of comes next; the answers before it may have taken their time
        backends, counters = ask_list(path, "backends"), ask(path, "counters", timeout_s=TIMEOUT_S)
        verdicts = {line["verdict"]: line for line in counters["verdicts"]}
        return MuxStatus(
            name, path, now, "", runtime, services, backends, verdicts, ask_list(path, "health"), _bgp(path)
        )
    except ControlError as error:
        return MuxStatus(name, path, now, error.reason)


def _bgp(path: Path) -> dict[str, Any]:
    try:
        said: dict[str, Any] = ask(path, "bgp", timeout_s=TIMEOUT_S)
    except ControlError:  # it has answered all else: it announces nothing
        return {}
    return said


def rate(now: MuxStatus, before: MuxStatus | None, count: int | None, last: int | None) -> float:
    """Per second; 0 without an earlier look, and where a counter began anew."""
    if before is None or count is None or last is None or now.at <= before.at:
        return 0.0
    return round(max(0, count - last) / (now.at - before.at), 1)


def backend_rates(now: MuxStatus, before: MuxStatus | None) -> Iterable[tuple[dict[str, Any], dict[str, float]]]:
    last = {(line["service"], line["backend"]): line for line in before.backends} if before else {}
    for line in now.backends:
        old = last.get((line["service"], line["backend"]))
        yield line, {f"{key}_per_s": rate(now, before, line[key], old[key] if old else None) for key in COUNTED}
