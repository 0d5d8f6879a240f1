"""The round-trip time through a mux at 1000 packets per second, compared with a loop without look-ups."""

import json

from bench.live import Bed
from bench.report import Result
from lbmux.lab.processes import python

SAMPLES, PPS = 3000, 1000


def run() -> list[Result]:
    with Bed() as bed:
        bed.start_empty()
        empty = measure(bed)
        bed.start_mux()
        mux = measure(bed)
    results = []
    for name, key, goal in (("median", "median_us", "< 100"), ("99th percentile", "p99_us", "< 1000")):
        ratio = mux[key] / empty[key]
        results.append(Result("latency", f"through the mux, {name}", mux[key], "µs", "empty loop", ratio, goal))
    return results


def measure(bed: Bed) -> dict[str, float]:
    command = python("bench.ping", "a0", "--samples", str(SAMPLES), "--pps", str(PPS))
    done = bed.lab.run("generator", command, capture_output=True, check=True, text=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured
