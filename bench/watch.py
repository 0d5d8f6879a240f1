"""What it costs that a mux can be watched: its packet loop before that was possible, with nobody watching, watched.

The loop is the mux's own, between a driver in memory that only lays the same frames down anew: cheaper than any
driver, so a live mux pays a smaller share.  The loops take turns, in another order each round, so that what else the
machine does befalls them alike, and the loop from before runs twice: how far its two figures are apart is what this
run can tell at all.  Processor time, since other programs take some of the wall clock's; but how many frames are
looked at goes by the wall clock, so on a busy machine being watched seems dearer than it is.  In the kernel another
program takes the usual one's place while somebody watches, and the usual one comes back then: that is measured against
itself, before anybody watched.  Generator and mux on one core.
"""

import asyncio
import statistics
import time

from bench.frames import LOCAL, Frames, config, tables
from bench.kernel import Stage
from bench.live import Bed
from bench.report import Result
from lbmux.daemons.drivers import Driver
from lbmux.daemons.packet_loop import PacketLoop
from lbmux.daemons.trace_hub import FRAMES_A_SECOND, TraceHub
from lbmux.datapath.verdicts import PASSES
from lbmux.frames.batch import CAPACITY, Batch
from lbmux.frames.packet_ring import PacketRing
from lbmux.tables.mux_tables import MuxTables
from lbmux.tables.snapshot import Snapshot
from lbmux.targets.native import Worker
from lbmux.targets.regions import now_ticks

ROUNDS, TURNS_S, KERNEL_ROUNDS = 60, 0.05, 9
"""Of each loop so many times so long."""
EVENTS_S = 0.002
"""How often the event loop has its turn; all loops pay for it alike."""
FLOWS = 1000
"""In the kernel."""
AGAIN = "before, again"
MATCHES_NOTHING = "udp and port 9"
BATCHES = {f"batches of {CAPACITY}": CAPACITY, "batches of 1": 1}
GOALS = {"nobody watches": "0.98 to 1.02", "a filter matches nothing": "< 1.03"}


class MemoryRing(PacketRing):
    """A driver without an interface: it always has the same frames, and sending is nothing."""

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
    """The loop as it was before anybody could watch."""

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
    """Rates of the kernel's program: as nobody has ever watched it, while somebody does, and when they have gone.

    A mux of its own for each round; the first of its rates and the last stand next to those of other rounds.
    """
    names = ("before", *GOALS)
    rates: dict[str, list[float]] = {name: [] for name in names}
    with Bed() as bed:
        stage = Stage(bed)
        for _ in range(KERNEL_ROUNDS):
            with stage.mux() as kernel:
                stage.rate(FLOWS)  # its entries are made
                rates["before"].append(stage.rate(FLOWS))
                with stage.watched(kernel, MATCHES_NOTHING):
                    rates["a filter matches nothing"].append(stage.rate(FLOWS))
                rates["nobody watches"].append(stage.rate(FLOWS))
    return [_kernel_result(name, rates) for name in names]


def _kernel_result(name: str, rates: dict[str, list[float]]) -> Result:
    """The ratio is of times a packet, as in user space."""
    what, value = f"in the kernel, {name}", statistics.median(rates[name])
    if name == "before":
        return Result("trace", what, value, "Mpps")
    ratio = statistics.median(before / rate for before, rate in zip(rates["before"], rates[name], strict=True))
    return Result("trace", what, value, "Mpps", "before, time a packet", ratio, GOALS[name])


def measured(count: int) -> dict[str, float]:
    """Median nanoseconds a packet of each loop, ``count`` frames a batch."""
    given = config()
    mux = MuxTables(tables(given), *LOCAL)
    mux.commit(mux.plan(given))
    worker = Worker(mux.tables)
    loops: dict[str, PacketLoop] = {name: Unwatchable(MemoryRing(count), worker) for name in ("before", AGAIN)}
    loops |= {name: PacketLoop(MemoryRing(count), worker) for name in GOALS}
    driver = Driver("mux", "eth0", mux.tables, 0, "packet")
    trace_hub = TraceHub(lambda: Snapshot.of_mux(mux), loops["a filter matches nothing"].watch, driver)
    return asyncio.run(_in_turn(loops, count, trace_hub))


async def _in_turn(loops: dict[str, PacketLoop], count: int, trace_hub: TraceHub) -> dict[str, float]:
    """With a watcher who waits for what never comes."""
    for loop in loops.values():
        await nanoseconds(loop, count)  # compiles, and lets each flow have its entry
    stream = trace_hub.watch(MATCHES_NOTHING)
    await anext(stream)
    found: dict[str, list[float]] = {name: [] for name in loops}
    for round_ in range(ROUNDS):
        names = list(loops)
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            budget = trace_hub._budget  # noqa: SLF001 -- what it saved meanwhile must not be spent now
            budget.take(FRAMES_A_SECOND, time.monotonic())
            found[name].append(await nanoseconds(loops[name], count))
    await stream.aclose()
    return {name: statistics.median(values) for name, values in found.items()}


async def nanoseconds(loop: PacketLoop, count: int) -> float:
    """A packet, on average over TURNS_S: a median of single batches would not see those that are looked at."""
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
