"""The cost of tracing: the mux's packet loop without tracing support, without a trace client, and with one.

The loop is the mux's own, with a driver in memory that only restores the same frames. It is cheaper than any real
driver, so a live mux pays a smaller share. The loops run in turn, in another order each round, so that other load
affects them alike. The loop without tracing runs twice: the difference of its two figures is this run's resolution.
The figures are CPU time, since other programs use some of the wall clock time; but the budget of recorded frames
depends on the wall clock, so tracing seems more expensive on a busy machine. In the kernel another program replaces the
usual one while a client traces, and is compared with the usual one before. Generator and mux share one core.
"""

import asyncio
import statistics
import time

from bench.frames import LOCAL, Frames, config, tables
from bench.kernel import KernelBed
from bench.live import Bed
from bench.report import Result
from lbmux.api.requests import Trace
from lbmux.daemons.drivers import Driver
from lbmux.daemons.packet_loop import PacketLoop
from lbmux.datapath.verdicts import PASSES
from lbmux.frames.batch import CAPACITY, Batch
from lbmux.frames.packet_ring import PacketRing
from lbmux.tables.mux_tables import MuxTables
from lbmux.tables.snapshot import Snapshot
from lbmux.targets.native import Worker
from lbmux.targets.regions import now_ticks
from lbmux.tracing.trace_budget import FRAMES_A_SECOND
from lbmux.tracing.trace_hub import TraceHub

ROUNDS, TURNS_S, KERNEL_ROUNDS = 60, 0.05, 9
"""The number of rounds, the seconds of each loop's turn, and the rounds in the kernel."""
EVENTS_S = 0.002
"""How often the event loop runs; all loops pay for it alike."""
FLOWS = 1000
"""The number of flows in the kernel."""
AGAIN = "before, again"
MATCHES_NOTHING = "udp and port 9"
BATCHES = {f"batches of {CAPACITY}": CAPACITY, "batches of 1": 1}
GOALS = {"no trace client": "0.98 to 1.02", "a filter matches nothing": "< 1.03"}


class MemoryRing(PacketRing):
    """A driver without an interface: it always receives the same frames, and sending does nothing."""

    def __init__(self, count: int) -> None:
        self._again = Frames(count)

    def receive(self, batch: Batch) -> int:
        frames = self._again
        frames.reset()
        batch.count = frames.count
        batch.address[: batch.count], batch.length[: batch.count] = frames.batch.address, frames.batch.length
        batch.interface[: batch.count] = 0
        return batch.count

    def arrivals(self, count: int) -> list[tuple[int, int]]:
        return [(time.time_ns(), 0)] * count

    def send(self, batch: Batch) -> int:
        return batch.count

    def release(self, batch: Batch) -> None:
        pass


class Unwatchable(PacketLoop):
    """The loop without tracing support."""

    def turn(self) -> int:
        ring, batch = self.ring, self._batch
        count = ring.receive(batch)
        if count:
            self.loop_histograms.batch(count)
            self._worker.forward(batch, now_ticks())
            ring.send(batch)
            if batch.verdict[:count].max() >= PASSES:
                self._keep_unresolved(batch, time.monotonic())
                self._slow_path(batch, ())
            ring.release(batch)
        return count


def run() -> list[Result]:
    results = []
    for name, count in BATCHES.items():
        before, *others = measured(count).items()
        results.append(Result("trace", f"{name}, {before[0]}", before[1], "ns a packet"))
        for loop, value in others:
            results.append(
                Result("trace", f"{name}, {loop}", value, "ns a packet", before[0], value / before[1],
                       GOALS.get(loop, "") if count == CAPACITY else "")
            )  # fmt: skip
    return results + in_kernel()


def in_kernel() -> list[Result]:
    """Measure the kernel program before, during and after tracing, with a new mux for each round."""
    names = ("before", *GOALS)
    rates: dict[str, list[float]] = {name: [] for name in names}
    with Bed() as bed:
        kernel_bed = KernelBed(bed)
        for _ in range(KERNEL_ROUNDS):
            with kernel_bed.mux() as kernel:
                kernel_bed.rate(FLOWS)  # it enters the flows
                rates["before"].append(kernel_bed.rate(FLOWS))
                with kernel_bed.watched(kernel, MATCHES_NOTHING):
                    rates["a filter matches nothing"].append(kernel_bed.rate(FLOWS))
                rates["no trace client"].append(kernel_bed.rate(FLOWS))
    return [_kernel_result(name, rates) for name in names]


def _kernel_result(name: str, rates: dict[str, list[float]]) -> Result:
    """Return the result. The ratio is of times per packet, as in user space."""
    what, value = f"in the kernel, {name}", statistics.median(rates[name])
    if name == "before":
        return Result("trace", what, value, "Mpps")
    ratio = statistics.median(before / rate for before, rate in zip(rates["before"], rates[name], strict=True))
    return Result("trace", what, value, "Mpps", "before, time a packet", ratio, GOALS[name])


def measured(count: int) -> dict[str, float]:
    """Return the median nanoseconds per packet of each loop, with ``count`` frames per batch."""
    configuration = config()
    mux = MuxTables(tables(configuration), *LOCAL)
    mux.commit(mux.plan(configuration))
    worker = Worker(mux.tables)
    loops: dict[str, PacketLoop] = {name: Unwatchable(MemoryRing(count), worker) for name in ("before", AGAIN)}
    loops |= {name: PacketLoop(MemoryRing(count), worker) for name in GOALS}
    driver = Driver("mux", "eth0", mux.tables, 0, "packet")
    trace_hub = TraceHub(lambda: Snapshot.of_mux(mux), loops["a filter matches nothing"].watch, driver)
    return asyncio.run(_in_turn(loops, count, trace_hub))


async def _in_turn(loops: dict[str, PacketLoop], count: int, trace_hub: TraceHub) -> dict[str, float]:
    """Measure the loops, with a trace client whose filter never matches."""
    for loop in loops.values():
        await nanoseconds(loop, count)  # compiles, and enters each flow
    stream = trace_hub.watch(Trace(MATCHES_NOTHING))
    await anext(stream)
    times: dict[str, list[float]] = {name: [] for name in loops}
    for round_ in range(ROUNDS):
        names = list(loops)
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            budget = trace_hub._budget  # noqa: SLF001 -- what it saved meanwhile must not be spent now
            budget.take(FRAMES_A_SECOND, time.monotonic())
            times[name].append(await nanoseconds(loops[name], count))
    await stream.aclose()
    return {name: statistics.median(values) for name, values in times.items()}


async def nanoseconds(loop: PacketLoop, count: int) -> float:
    """Return nanoseconds per packet, averaged over TURNS_S: a median of batches would miss those that are recorded."""
    turns, start, end = 0, time.thread_time_ns(), time.monotonic() + TURNS_S
    while (now := time.monotonic()) < end:
        while time.monotonic() < now + EVENTS_S:
            loop.turn()
            turns += 1
        await asyncio.sleep(0)
    used = time.thread_time_ns() - start
    verdicts = loop._batch.verdict[:count]  # noqa: SLF001 -- the last batch, which nothing else keeps
    assert (verdicts == 0).all(), "not every frame was forwarded"
    return used / turns / count
