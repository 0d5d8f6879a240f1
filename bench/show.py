"""The cost of `lbmux show flows` for a mux with a million flows, and the packet delay that it causes.

The requests go to the control socket of a real mux, which forwards 1000 packets per second meanwhile; each packet's
round trip is timed. The mux and its answering threads have one core; the client and the timer share the other.
"""

import copy
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.live import Bed, topology
from bench.report import Result
from lbmux.api.answers import Flows
from lbmux.api.control_client import ControlClient
from lbmux.api.requests import CountFlows, GetFlows, Request
from lbmux.lab.processes import python

FLOWS, OFFERED = 1_000_000, 1 << 20
FILLING_S, MOST_FILLINGS = 5.0, 12
SAMPLES, PPS, PAUSE_S = 3000, 1000, 0.1
QUESTIONS: dict[str, Request[Any]] = {
    "all counted": CountFlows(),
    "counted by a filter": CountFlows("src net 198.18.0.0/20 and not port 1025"),
    "the 50 idlest": GetFlows(sort="-idle", limit=50),
    "filtered, by source": GetFlows("idle > 0.5 and port 1024", "source", 50),
    "all sorted, 10,000 read": GetFlows(sort="backend"),
}
MOST_READ = 10_000


def run() -> list[Result]:
    with Bed() as bed:
        bed.lab.write_config(_config())
        bed.start_mux()
        control = bed.lab.directory / "mux.sock"
        flows = _fill(bed, control)
        quiet, _ = _measure(bed, lambda: None)
        outcomes = {name: _measure(bed, lambda asked=asked: _ask(control, asked)) for name, asked in QUESTIONS.items()}
    results = [
        Result("show", f"longest wait in {SAMPLES} packets, no request", quiet["longest_us"] / 1000, "ms",
               note=f"99 of 100: {quiet['p99_us'] / 1000:.2g} ms"),
    ]  # fmt: skip
    for name, (waits, times) in outcomes.items():
        longest, note = waits["longest_us"], f"99 of 100: {waits['p99_us'] / 1000:.2g} ms; {waits['lost']:.0f} lost"
        what = f"show flows, {name}"
        results += [
            Result("show", f"{what}, of {flows}", statistics.median(times) * 1000, "ms", note=f"{len(times)} times"),
            Result("show", f"longest wait meanwhile: {name}", longest / 1000, "ms", "no request",
                   longest / quiet["longest_us"], "<= 10 ms", note),
        ]  # fmt: skip
    return results


def _config() -> dict[str, Any]:
    """Return a configuration in which every flow has an entry, and none expires during the measurement."""
    config, idle = copy.deepcopy(topology().config), {"untrusted_s": 3600, "tcp_s": 3600}
    services = [service | {"flows": "all"} for service in config["services"]]
    return config | {"flows": {"limit": 2 * FLOWS}, "idle": idle, "services": services}


def _fill(bed: Bed, control: Path) -> int:
    """Fill the flow table with packets. The generator is faster than the mux, so this takes several rounds."""
    for _ in range(MOST_FILLINGS):
        bed.generate(FILLING_S, OFFERED)
        flows = ControlClient(control).ask(CountFlows()).flows
        if flows >= FLOWS:
            return flows
    raise RuntimeError(f"only {flows} flows were entered")


def _ask(control: Path, request: Request[Any]) -> None:
    read = 0
    for answer in ControlClient(control, timeout_s=None).stream(request):
        read += len(answer.flows) if isinstance(answer, Flows) else 0
        if read >= MOST_READ:
            return


def _measure(bed: Bed, question: Callable[[], None]) -> tuple[dict[str, float], list[float]]:
    """Return the packets' round-trip times, and the times of the request, which is repeated meanwhile."""
    command = python("bench.ping", "a0", "--samples", str(SAMPLES), "--pps", str(PPS))
    times = list[float]()
    with bed.lab.popen("generator", command, stdout=subprocess.PIPE, text=True) as ping:
        while ping.poll() is None:
            time.sleep(PAUSE_S)
            began = time.perf_counter()
            question()
            times.append(time.perf_counter() - began)
        assert ping.stdout is not None
        return json.loads(ping.stdout.read()), times
