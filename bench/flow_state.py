"""The cost of flow state in the kernel: CPU time per frame by number of flows, tracking and share of changing slots.

Each case is compared with an empty XDP_TX program in the same turn. The figures are medians of three turns.
"""

import contextlib
import os
import statistics
from collections.abc import Iterator

import numpy as np

from bench.cpu_time import CpuTime
from bench.frames import tcp_frame
from bench.kernel import FIRST_FRAMES, NEW, KernelBed, fill
from bench.live import GENERATOR_CORE, Bed
from bench.report import REPETITIONS, Result
from lbmux.lab.namespaces import inside
from lbmux.targets.regions import Tables
from lbmux.wire.numbers import ACK, SYN

FLOWS = {
    "1000 flows": (4, 1000),
    "100,000 flows": (4, 100_000),
    "1,000,000 flows": (4, 1_000_000),
    "10,000,000 flows": (4, 10_000_000),
    "new flows": (4, NEW),
    "IPv6 in IPv6, 1000 flows": (6, 1000),
    "IPv6 in IPv6, 1,000,000 flows": (6, 1_000_000),
}
"""The IP version and the number of flows by name."""
STEADY = "changed, steady"
CASES = {"all": ("all", 0), STEADY: ("changed", 0), "changed, 1 slot in 8": ("changed", 8)}
"""Cases by name: which flows the service tracks, and one slot in how many is changing; 0: none."""
GOALS = {
    ("changed, steady", "1000 flows"): ">= 0.84",
    ("changed, steady", "100,000 flows"): ">= 0.76",
    ("changed, steady", "1,000,000 flows"): ">= 0.76",
    ("changed, steady", "10,000,000 flows"): ">= 0.76",
    ("changed, steady", "new flows"): ">= 0.72",
    ("changed, steady", "IPv6 in IPv6, 1000 flows"): ">= 0.72",
    ("changed, steady", "IPv6 in IPv6, 1,000,000 flows"): ">= 0.72",
    ("changed, 1 slot in 8", "100,000 flows"): ">= 0.65",
    ("changed, 1 slot in 8", "1,000,000 flows"): ">= 0.65",
}
FRAMES = 1_500_000


class Timed(KernelBed):
    def frame_ns(self, flows: int, version: int = 4, services: int = 1, has_entries: bool = True) -> float:
        """Return the CPU time of a frame that came back, in ns.

        The flows go to ``services`` services, a power of two. ``has_entries``: flows get entries, so every flow is seen
        twice before.
        """
        row, frame = self.aim(flows, services), tcp_frame(version=version)

        def run(count: int, clock: CpuTime, flags: int) -> float:
            row["next"], row["flags"], back = 0, flags, int(row["back"])
            before = clock.ns()
            self.send(frame, count, version)
            return (clock.ns() - before) / (int(row["back"]) - back)

        def work() -> float:
            os.sched_setaffinity(0, {GENERATOR_CORE})
            clock = CpuTime()
            if flows == NEW:
                run(FIRST_FRAMES, clock, SYN)
                return run(FRAMES, clock, SYN)
            if has_entries:
                run(flows, clock, SYN)
            run(max(FIRST_FRAMES, flows if has_entries else 0), clock, ACK)
            return run(FRAMES, clock, ACK)

        return inside(self._generator, work)

    @contextlib.contextmanager
    def tracking(self, case: str, version: int = 4) -> Iterator[None]:
        """Test the mux with a service that tracks these flows and has this share of its slots changing."""
        with self.marked(*CASES[case], version):
            yield

    @contextlib.contextmanager
    def marked(self, flows: str, one_in: int, version: int = 4, services: int = 1) -> Iterator[None]:
        """Test the mux with services that track ``flows``, with one slot in ``one_in`` changing; 0: none."""
        with self.mux(services=services) as kernel:
            fill(kernel.tables, self.macs, flows, version, services)
            mark(kernel.tables, one_in)
            yield


def mark(tables: Tables, one_in: int) -> None:
    """Make one slot in ``one_in`` of each service changing: its base is another slot's backend."""
    for service in tables.services[tables.active]:
        pairs = tables.slots[int(service["slots"]) :][: int(service["size"])]
        if one_in and len(pairs):
            pairs["base"][::one_in] = np.roll(pairs["backend"], 1)[::one_in]


def run() -> list[Result]:
    results: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with Bed() as bed:
        kernel_bed = Timed(bed)
        for _ in range(REPETITIONS):
            for name, (version, flows) in FLOWS.items():
                with kernel_bed.program("send_back"):
                    limit = kernel_bed.frame_ns(flows, version, has_entries=False)
                for case in CASES:
                    with kernel_bed.tracking(case, version):
                        ns = kernel_bed.frame_ns(flows, version, has_entries=case != STEADY)
                    results.setdefault((case, name), []).append((ns, limit))
    return [
        Result("flow_state", f"{case}: {name}", statistics.median(ns for ns, _ in pairs), "ns of CPU", "XDP_TX",
               statistics.median(limit / ns for ns, limit in pairs), GOALS.get((case, name), ""))
        for (case, name), pairs in results.items()
    ]  # fmt: skip
