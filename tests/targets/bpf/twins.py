"""The two targets side by side: native tables and kernel tables with the same contents, and the same frames.

Each frame goes through the kernel's program at a time of its own clock; native code is then told the same time.  That
clock steps every few milliseconds, so frames are run between two steps only.  Where this process was held up and a
step came all the same, the flow that the frame left behind tells the time.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

import numpy as np

from lbmux.targets.bpf.maps import KernelTables
from lbmux.targets.bpf.syscall import Attach
from lbmux.targets.bpf.test_runs import Run, TestRunner
from lbmux.targets.regions import CLOCK_MONOTONIC_COARSE, Tables, now_ticks
from tests.datapath.harness import Frames, Machine

ETHERNET_BYTES = 14
"""The least that a test run takes."""
MOMENT_NS = 100_000
REGIONS = ("settings", "names", "services", "slots", "backends", "flows", "endpoints", "verdicts", "lookups", "traffic")


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """In the kernel the worker is the CPU's number."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class CalmClock:
    """The data path's clock, read only where it does not step for a moment."""

    def __init__(self) -> None:
        self._step_ns = int(time.clock_getres(CLOCK_MONOTONIC_COARSE) * 1e9)
        self._now_ns = self._until_ns = 0

    def now_ticks(self) -> int:
        coarse_ns = time.clock_gettime_ns(CLOCK_MONOTONIC_COARSE)
        if coarse_ns != self._now_ns or time.monotonic_ns() > self._until_ns:
            while time.clock_gettime_ns(CLOCK_MONOTONIC_COARSE) == coarse_ns:
                pass
            stepped_ns = time.monotonic_ns()
            while time.monotonic_ns() < stepped_ns + MOMENT_NS:
                pass
            self._now_ns = time.clock_gettime_ns(CLOCK_MONOTONIC_COARSE)
            self._until_ns = stepped_ns + self._step_ns - MOMENT_NS
        return now_ticks()


def copy_tables(source: Tables, target: Tables) -> None:
    for name in REGIONS:
        size = source.sizes.regions()[name]
        target.memory[name][:size] = source.memory[name][:size]


class Twins:
    """A machine that has been set up, and the kernel's copy of it."""

    def __init__(self, machine: Machine, programs: dict[str, Attach]) -> None:
        self.machine = machine
        self._clock = CalmClock()
        self.kernel = KernelTables.create(machine.tables.sizes)
        copy_tables(machine.tables, self.kernel.tables)
        self.loaded = {name: self.kernel.load(name, place) for name, place in programs.items()}
        self._runners = {name: TestRunner(loaded.descriptor) for name, loaded in self.loaded.items()}

    def __enter__(self) -> "Twins":
        return self

    def __exit__(self, *error: object) -> None:
        self.kernel.close()
        for loaded in self.loaded.values():
            os.close(loaded.descriptor)

    def both(self) -> tuple[Tables, Tables]:
        """For changes that are to be made to both."""
        return self.machine.tables, self.kernel.tables

    def run(self, program: str, frames: Sequence[bytes]) -> tuple[list[Run], Iterator[Frames]]:
        """(what the kernel's program made of each, the same frames for native code: batches that ran already)."""
        runs, times = [], []
        for frame in frames:
            before = self._clock.now_ticks()
            runs.append(self._runners[program].run(frame))
            after = now_ticks()
            later = before != after and bool((self.kernel.tables.flows["seen"] == after).any())
            times.append(after if later else before)
        return runs, self._native(program, frames, times)

    def _native(self, program: str, frames: Sequence[bytes], times: list[int]) -> Iterator[Frames]:
        worker, at = self.machine.worker, 0
        step = {"mux_xdp": worker.forward, "agent_xdp": worker.inbound, "agent_tc": worker.outbound}[program]
        for now, group in groupby(times):
            count = len(list(group))
            batch = Frames(frames[at : at + count])
            step(batch, now)
            at += count
            yield batch

    def assert_same_tables(self) -> None:
        """To the byte: counters, flows with their times, everything."""
        native, kernel = self.both()
        for name in REGIONS:
            size = native.sizes.regions()[name]
            assert np.array_equal(native.memory[name][:size], kernel.memory[name][:size]), name
