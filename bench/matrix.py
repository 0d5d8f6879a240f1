"""CPU time of a frame in the kernel by number of flows, services and marked slots, within an hour.

Each cell is compared with an empty XDP_TX program in the same turn. A turn measures every cell once. There are three
turns if the time allows: a run that is cut short has fewer turns, and fewer cells only if it ends in the first one.
"""

import itertools
import statistics
import sys
import time
from collections.abc import Iterator

from bench.flow_state import Timed
from bench.kernel import NEW
from bench.live import Bed
from bench.report import REPETITIONS, Result

SECONDS = 3600.0
"""No cell begins later than this."""
FLOWS = {"1000 flows": 1000, "100,000 flows": 100_000, "1,000,000 flows": 1_000_000, "10,000,000 flows": 10_000_000,
         "new flows": NEW}  # fmt: skip
SERVICES = {"1 service": (1, 1), "traffic to 1 of 1000 services": (1000, 1), "spread over 32 services": (32, 32),
            "spread over 512 services": (512, 512)}  # fmt: skip
"""The number of services by name, and how many of them get traffic, a power of two."""
MARKED = {"no slot marked": 0, "1 slot in 64 marked": 64, "1 slot in 8 marked": 8, "every slot marked": 1}
"""One slot in how many is changing, by name; 0: none."""


Cells = dict[str, list[tuple[float, float]]]
"""One pair for each turn, by a cell's name: CPU time of a frame, and that of the empty program, in ns."""


def run() -> list[Result]:
    return [[], *so_far()][-1]


def so_far() -> Iterator[list[Result]]:
    """Yield the results after each cell, so that an interrupted run keeps what it has measured."""
    cells: Cells = {}
    total = REPETITIONS * len(FLOWS) * len(SERVICES) * len(MARKED)
    begun = time.monotonic()
    with Bed() as bed:
        for number, (name, ns, limit) in enumerate(_measured(Timed(bed), begun + SECONDS), 1):
            cells.setdefault(name, []).append((ns, limit))
            took = time.monotonic() - begun
            print(f"\n{number} of {total}, {took:.0f} s: {name}: {ns:.0f} ns, {limit / ns:.2f}", end="",
                  file=sys.stderr, flush=True)  # fmt: skip
            yield _results(cells)


def _measured(kernel_bed: Timed, until: float) -> Iterator[tuple[str, float, float]]:
    """Yield each cell that begins in time: (its name, the CPU time of a frame, that of the empty program)."""
    for _, (flows_name, flows) in itertools.product(range(REPETITIONS), FLOWS.items()):
        with kernel_bed.program("send_back"):
            limit = kernel_bed.frame_ns(flows, has_entries=False)
        for (services_name, (services, busy)), (marked, one_in) in itertools.product(SERVICES.items(), MARKED.items()):
            if time.monotonic() > until:
                return
            with kernel_bed.marked("changed", one_in, services=services):
                ns = kernel_bed.frame_ns(flows, services=busy, has_entries=one_in > 0)
            yield f"{flows_name}, {services_name}, {marked}", ns, limit


def _results(cells: Cells) -> list[Result]:
    return [
        Result("matrix", name, statistics.median(ns for ns, _ in pairs), "ns of CPU", "XDP_TX",
               statistics.median(limit / ns for ns, limit in pairs), note=f"{len(pairs)} turns")
        for name, pairs in cells.items()
    ]  # fmt: skip
