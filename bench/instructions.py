"""How many BPF instructions the mux executes for a packet, and how many of them are spills (loads and stores of the
stack).

A figure holds only if the interpreter (bpf_machine.py) and the kernel agree on the action, the frame and every byte of
the tables.
"""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.bpf_machine import Count, Machine
from bench.frames import config, tables, tcp_frame
from bench.report import Result
from lbmux.config.models import Config
from lbmux.datapath.context import TABLE_SYMBOL, TABLES
from lbmux.tables.mux_tables import sizes_for
from lbmux.targets.bpf import objects
from lbmux.targets.bpf.maps import KernelTables, numbers_of
from lbmux.targets.bpf.syscall import Attach
from lbmux.targets.bpf.test_runs import TestRunner, on_first_cpu

PROGRAM = ":mux_xdp"
CLOCK = {"jiffy_ns": 0, "jiffy_offset_ns": 1 << 40}
"""A clock that stands still, for both."""
FLOW_LIMIT = 1 << 12
ESTABLISHED = ("S", "A", "A")
GOAL = 300
USUAL = "IPv4 TCP, established, flows: changed"
KINDS: dict[str, tuple[int, tuple[str, ...], dict[str, object]]] = {
    USUAL: (4, ESTABLISHED, {"flows": "changed"}),
    "IPv4 TCP, a SYN, flows: changed": (4, ("S",), {"flows": "changed"}),
    "IPv4 TCP, established, flows: all": (4, ESTABLISHED, {"flows": "all"}),
    "IPv4 TCP, a SYN, flows: all": (4, ("S",), {"flows": "all"}),
    "IPv4 TCP in GUE, established, flows: changed": (4, ESTABLISHED, {"flows": "changed", "tunnel": "gue1"}),
    "IPv6 TCP in IPv6, established, flows: changed": (6, ESTABLISHED, {"flows": "changed"}),
    "IPv6 TCP in IPv6, established, flows: all": (6, ESTABLISHED, {"flows": "all"}),
}
"""Cases by name: the IP version, the TCP flags of the packets up to the one that counts, and the service's keys."""


class DisagreementError(AssertionError):
    """The interpreter and the kernel do not agree on a packet."""


def run() -> list[Result]:
    results = []
    for name in KINDS:
        count, goal = counted(name), f"<= {GOAL}" if name == USUAL else ""
        note = f"{count.spills} of them spills"
        results.append(Result("instructions", name, count.instructions, "BPF instructions", goal=goal, note=note))
    return results


def counted(kind: str) -> Count:
    """Return the count of a kind's last packet."""
    version, packets, more = KINDS[kind]
    configuration = config(FLOW_LIMIT, version=version, **more)  # type: ignore[arg-type]
    return count_last(configuration, [tcp_frame(version=version, flags=flags) for flags in packets])


def count_last(configuration: Config, frames: Sequence[bytes]) -> Count:
    """Return the count of the last frame. Raise DisagreementError if the kernel does something else with any."""
    with KernelTables.create(sizes_for(configuration, 2)) as kernel, on_first_cpu():
        tables(configuration, memory=kernel.tables)
        copies = {name: kernel.tables.memory[name].copy() for name in TABLES}
        loaded = kernel.load(PROGRAM, Attach.XDP, CLOCK)
        try:
            runner, machine = TestRunner(loaded.descriptor), _machine(kernel, copies)
            for frame in frames:
                count, run = machine.run(frame), runner.run(frame)
                if (count.result, count.frame) != (run.result, run.frame):
                    raise DisagreementError(f"{count.result}, {count.frame.hex()} and {run.result}, {run.frame.hex()}")
        finally:
            os.close(loaded.descriptor)
        for name, memory in copies.items():
            if not np.array_equal(memory, kernel.tables.memory[name]):
                raise DisagreementError(f"table of {name}")
    return count


def _machine(kernel: KernelTables, memory: Mapping[str, NDArray[np.uint8]]) -> Machine:
    numbers = numbers_of(kernel.tables.sizes, CLOCK)
    maps = {TABLE_SYMBOL + name: at for at, name in enumerate(memory)}
    code = objects.compiled(PROGRAM).program(objects.SECTION, maps, numbers)
    return Machine(code, {at: memoryview(rows) for at, rows in enumerate(memory.values())})
