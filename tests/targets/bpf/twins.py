"""The two targets side by side: native tables and kernel tables with the same contents, and the same frames.

The kernel's program gets a constant clock: it is loaded again for each time.
"""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from lbmux.datapath.context import TABLES
from lbmux.datapath.tables import TICK_SHIFT
from lbmux.targets.bpf.maps import KernelTables
from lbmux.targets.bpf.syscall import Attach, Loaded
from lbmux.targets.bpf.test_runs import Run, TestRunner
from lbmux.targets.regions import Tables
from tests.datapath.harness import Frames, Machine

ETHERNET_BYTES = 14
"""The least that a test run takes."""


def copy_tables(source: Tables, target: Tables) -> None:
    for name in TABLES:
        size = source.sizes.regions()[name]
        target.memory[name][:size] = source.memory[name][:size]


class Twins:
    """A machine that has been set up, and the kernel's copy of it."""

    def __init__(self, machine: Machine, programs: Mapping[str, Attach], now: int = 0) -> None:
        self.machine = machine
        self.kernel = KernelTables.create(machine.tables.sizes)
        copy_tables(machine.tables, self.kernel.tables)
        self._programs = programs
        self.loaded: dict[str, Loaded] = {}
        self.set_time(now)

    def set_time(self, now: int) -> None:
        """Set the time, in ticks."""
        self.close_programs()
        self._now = now
        clock = {"jiffy_ns": 0, "jiffy_offset_ns": now << TICK_SHIFT}
        self.loaded = {name: self.load(name, place, clock) for name, place in self._programs.items()}

    def load(self, name: str, place: Attach, clock: Mapping[str, int]) -> Loaded:
        return self.kernel.load(name, place, clock)

    def close_programs(self) -> None:
        for loaded in self.loaded.values():
            os.close(loaded.descriptor)

    def __enter__(self) -> "Twins":
        return self

    def __exit__(self, *error: object) -> None:
        self.close_programs()
        self.kernel.close()

    def both(self) -> tuple[Tables, Tables]:
        """For changes that are to be made to both."""
        return self.machine.tables, self.kernel.tables

    def run(self, program: str, frames: Sequence[bytes]) -> tuple[list[Run], Frames]:
        """(what the kernel's program made of each, the same frames after native code)."""
        runner, worker = TestRunner(self.loaded[program].descriptor), self.machine.worker
        runs, batch = [runner.run(frame) for frame in frames], Frames(frames)
        step = {"mux_xdp": worker.forward, "agent_xdp": worker.inbound, "agent_tc": worker.outbound}[program]
        step(batch, self._now)
        return runs, batch

    def assert_same_tables(self) -> None:
        """Compare counters, flows and all other tables, byte by byte."""
        native, kernel = self.both()
        for name in TABLES:
            size = native.sizes.regions()[name]
            assert np.array_equal(native.memory[name][:size], kernel.memory[name][:size]), name
