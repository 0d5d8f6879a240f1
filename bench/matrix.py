"""CPU time of a frame in the kernel by number of flows, services and marked slots: about an hour.

Each cell is compared with an empty XDP_TX program in the same turn. The figures are medians of three turns.
"""

import itertools
import statistics

from bench.flow_state import Timed
from bench.kernel import NEW
from bench.live import Bed
from bench.report import REPETITIONS, Result

FLOWS = {"1000 flows": 1000, "100,000 flows": 100_000, "1,000,000 flows": 1_000_000, "10,000,000 flows": 10_000_000,
         "new flows": NEW}  # fmt: skip
SERVICES = {"1 service": (1, 1), "traffic to 1 of 1000 services": (1000, 1), "spread over 32 services": (32, 32),
            "spread over 512 services": (512, 512)}  # fmt: skip
"""The number of services by name, and how many of them get traffic, a power of two."""
MARKED = {"no slot marked": 0, "1 slot in 64 marked": 64, "1 slot in 8 marked": 8, "every slot marked": 1}
"""One slot in how many is changing, by name; 0: none."""


def run() -> list[Result]:
    cells: dict[str, list[tuple[float, float]]] = {}
    with Bed() as bed:
        kernel_bed = Timed(bed)
        for _, (flows_name, flows) in itertools.product(range(REPETITIONS), FLOWS.items()):
            with kernel_bed.program("send_back"):
                limit = kernel_bed.frame_ns(flows)
            for (services_name, (services, busy)), (marked, one_in) in itertools.product(
                SERVICES.items(), MARKED.items()
            ):
                with kernel_bed.marked("changed", one_in, services=services):
                    ns = kernel_bed.frame_ns(flows, services=busy)
                cells.setdefault(f"{flows_name}, {services_name}, {marked}", []).append((ns, limit))
    return [
        Result("matrix", name, statistics.median(ns for ns, _ in pairs), "ns of CPU", "XDP_TX",
               statistics.median(limit / ns for ns, limit in pairs))
        for name, pairs in cells.items()
    ]  # fmt: skip
