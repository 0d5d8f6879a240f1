"""The pipeline in memory: nanoseconds a packet, by the number of flows, and bytes a flow."""

import time

from bench.frames import Frames, config, tables
from bench.report import Result, median
from lbmux.targets.native import Worker
from lbmux.targets.regions import now_ticks

FLOWS = {100: "", 1000: "< 40", 100_000: "", 1_000_000: "< 150"}
PACKETS = 2_000_000
WARM_ROUNDS = 6


def run() -> list[Result]:
    results = []
    reference = 0.0
    for flows, goal in FLOWS.items():
        made = tables(config())
        frames, worker = Frames(flows), Worker(made)

        def once(frames: Frames = frames, worker: Worker = worker) -> float:
            frames.reset()
            start = time.perf_counter_ns()
            worker.forward(frames.batch, now_ticks())
            return (time.perf_counter_ns() - start) / frames.count

        def several(rounds: int = max(3, PACKETS // flows // 10)) -> float:
            return sorted(once() for _ in range(rounds))[rounds // 2]

        for _ in range(WARM_ROUNDS):
            once()
        made.lookups[:] = 0
        value = median(several)
        assert (frames.batch.verdict == 0).all(), "not every frame was forwarded"
        reference = reference or value
        hits = int(made.lookups[0][0]) / int(made.lookups[0].sum())
        results.append(
            Result("memory", f"{flows:,} flows, 64 bytes", value, "ns a packet", "100 flows", value / reference, goal,
                   f"{hits:.1%} of look-ups hit")
        )  # fmt: skip
    table = tables(config()).flows
    results.append(
        Result("memory", "flow table for 1,048,576 flows", table.nbytes / 2**20, "MiB", goal="<= 64",
               note=f"{table.nbytes / 2**20 * 2**20 / (1 << 20):.0f} bytes a flow")
    )  # fmt: skip
    return results
