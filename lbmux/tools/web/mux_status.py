"""Poll the muxes of a pool over their control sockets, and compute rates between two polls.

Only control sockets are used, so polling does not touch the data path.
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
    """A mux's answers, or ``error`` if it does not answer."""

    name: str
    path: Path
    at: float
    error: str = ""
    runtime: dict[str, Any] = field(default_factory=dict)
    services: list[dict[str, Any]] = field(default_factory=list)
    backends: list[dict[str, Any]] = field(default_factory=list)
    verdicts: dict[str, dict[str, Any]] = field(default_factory=dict)
    health: list[dict[str, Any]] = field(default_factory=list)
    """Health of all backends in the file.  ``backends`` has only those in the tables."""
    bgp: dict[str, Any] = field(default_factory=dict)
    """The BGP status; empty if the mux does not use BGP."""


def names(paths: Sequence[Path]) -> dict[str, Path]:
    """The muxes' names on the page: the socket's stem, or its full path if two stems are the same."""
    stems = [path.stem for path in paths]
    return {path.stem if stems.count(path.stem) == 1 else str(path): path for path in paths}


def poll(name: str, path: Path) -> MuxStatus:
    """Poll one mux."""
    now = time.monotonic()
    try:
        runtime = ask(path, "runtime", timeout_s=TIMEOUT_S)
        if runtime["program"] != "mux":
            return MuxStatus(name, path, now, f"is the socket of the {runtime['program']}, not of a mux")
        services = ask_list(path, "services")
        now = time.monotonic()  # the time of the counters, which are read next
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
    except ControlError:  # it answers other requests, so it runs without BGP
        return {}
    return said


def rate(now: MuxStatus, before: MuxStatus | None, count: int | None, last: int | None) -> float:
    """A rate per second; 0 without an earlier poll, or if the counter was reset."""
    if before is None or count is None or last is None or now.at <= before.at:
        return 0.0
    return round(max(0, count - last) / (now.at - before.at), 1)


def backend_rates(now: MuxStatus, before: MuxStatus | None) -> Iterable[tuple[dict[str, Any], dict[str, float]]]:
    last = {(line["service"], line["backend"]): line for line in before.backends} if before else {}
    for line in now.backends:
        old = last.get((line["service"], line["backend"]))
        yield line, {f"{key}_per_s": rate(now, before, line[key], old[key] if old else None) for key in COUNTED}
