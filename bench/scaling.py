"""How much a second busy CPU slows the first: the mux's program on each CPU, in turn with an empty one.

Each program runs pinned to a CPU (``BPF_PROG_TEST_RUN``), alone and then on two CPUs at once. Two CPUs may be threads
of one core, so two empty programs slow each other down too; a ratio is relative to theirs.
"""

import contextlib
import os
import statistics
import threading
from collections.abc import Sequence

from bench.frames import tcp_frame
from bench.kernel import fill
from bench.report import REPETITIONS, Result
from lbmux.addresses import mac_to_int
from lbmux.datapath.tables import Sizes
from lbmux.targets.bpf.maps import KernelTables
from lbmux.targets.bpf.syscall import Attach
from lbmux.targets.bpf.test_runs import TestRunner

CPUS = sorted(os.sched_getaffinity(0))[:2]
RUNS, TURNS = 2_000_000, 3 * REPETITIONS
MACS = mac_to_int("02:00:00:00:00:01"), mac_to_int("02:00:00:00:00:02")
GOAL = ">= 0.9"
CASES = {
    "flows: changed": ("changed", (1, 2)),
    "flows: all, a flow on each CPU": ("all", (1, 2)),
    "flows: all, one flow on both CPUs": ("all", (1, 1)),
}
"""How flows are tracked, and the last byte of the client's address on each CPU."""


def run() -> list[Result]:
    results = []
    for name, (flows, clients) in CASES.items():
        rates, value = measured(flows, clients)
        note = f"{rates[1] / rates[0]:.2f} of the packets per CPU-second of one CPU"
        results.append(Result("scaling", name, rates[1], "Mpps a CPU", "two empty programs", value, GOAL, note))
    return results


def measured(flows: str, clients: Sequence[int]) -> tuple[tuple[float, float], float]:
    """Return ((millions of packets per CPU-second on one CPU, on two), how well the mux scales beside XDP_TX)."""
    with KernelTables.create(Sizes(workers=max(CPUS) + 2)) as kernel, contextlib.ExitStack() as stack:
        fill(kernel.tables, MACS, flows)
        programs = [
            kernel.load(f"bench.kernel_programs:{name}", Attach.XDP).descriptor for name in ("again", "nothing")
        ]
        for program in programs:
            stack.callback(os.close, program)
        frames = [from_client(client) for client in clients]
        turns = [[(durations(program, frames[:1]), durations(program, frames)) for program in programs]
                 for _ in range(TURNS)]  # fmt: skip
    scaling = statistics.median(
        (mux_alone / mux_both) / (empty_alone / empty_both)
        for (mux_alone, mux_both), (empty_alone, empty_both) in turns
    )
    alone, both = (statistics.median(1e3 / turn[0][at] for turn in turns) for at in (0, 1))
    return (alone, both), scaling


def from_client(last: int) -> bytes:
    """Return a frame of an established flow. The checksums are not those of its address, which nothing looks at."""
    frame = bytearray(tcp_frame())
    frame[29] = last
    return bytes(frame)


def durations(program: int, frames: Sequence[bytes]) -> float:
    """Run a program on as many CPUs as there are frames, at once. Return the mean nanoseconds per packet."""
    taken = [0] * len(frames)
    begin = threading.Barrier(len(frames))

    def work(number: int) -> None:
        os.sched_setaffinity(0, {CPUS[number]})  # of this thread
        runner = TestRunner(program)
        begin.wait()
        taken[number] = runner.run(frames[number], RUNS).duration_ns

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(frames))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statistics.mean(taken)
