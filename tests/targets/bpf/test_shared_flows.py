"""One flow table that kernel programs on two CPUs and user space use at the same time."""

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lbmux.datapath.atomics import LOADS_ARE_ORDERED
from lbmux.datapath.tables import CLAIMED, CONTENDED, LOCKED, TRUSTED, UP, Sizes
from lbmux.targets.bpf import objects
from lbmux.targets.bpf.maps import KernelTables
from lbmux.targets.bpf.syscall import Attach
from lbmux.targets.bpf.test_runs import TestRunner
from lbmux.targets.native import Worker
from tests.targets.bpf.flow_race import (
    EXPECTED,
    HITS,
    KEYS,
    RACE_FLOWS,
    RACERS,
    RANDOM,
    SAID,
    TURN,
    WRONG,
    hammer_in_user_space,
    race_in_user_space,
)

pytestmark = pytest.mark.root
CPUS = sorted(os.sched_getaffinity(0))[:2]
USER = max(CPUS) + 1
"""The number of user space's worker."""
ATOMIC_64, STACK = 0xDB, 10
"""The opcode of BPF's atomic operations on 64 bits, and the register that points to the stack."""
NEVER, FRAME = 1 << 30, bytes(64)
LEAST_AT_ONCE, MOST_ROUNDS = 1000, 20
HAMMER_ROUNDS, LEAST_HITS, TURNS = 8, 50_000, 10_000


def kernel_tables(buckets: int) -> Iterator[KernelTables]:
    sizes = Sizes(16, 4, 2 * (SAID + RACERS * RACE_FLOWS), 4, buckets, workers=USER + 1)
    with KernelTables.create(sizes) as kernel:
        kernel.tables.backends["state"] = UP
        kernel.tables.settings["longest_idle"] = NEVER
        for name in ("idle_trusted", "idle_untrusted", "idle_closing"):
            kernel.tables.services[name] = NEVER
        yield kernel


@pytest.fixture
def spacious() -> Iterator[KernelTables]:
    yield from kernel_tables(RACE_FLOWS)


@pytest.fixture
def crowded() -> Iterator[KernelTables]:
    yield from kernel_tables(16)


def numbers(kernel: KernelTables) -> NDArray[np.uint64]:
    return kernel.tables.slots.view(np.uint64)


def at_once(kernel: KernelTables, program: str, native: Any, is_over: Callable[[], bool]) -> None:
    """Run the program on each CPU, and ``native`` beside it, until it ``is_over``."""
    loaded = kernel.load(f"tests.targets.bpf.{program}", Attach.XDP)
    worker = Worker(kernel.tables, USER)
    native(worker.address, USER, 0)  # compiled before the others begin

    def in_kernel(cpu: int) -> None:
        os.sched_setaffinity(0, {cpu})  # of this thread
        runner = TestRunner(loaded.descriptor)
        while not is_over():
            runner.run(FRAME, TURNS)

    def in_user_space() -> None:
        while not is_over():
            native(worker.address, USER, TURNS)

    jobs: list[Callable[[], None]] = [in_user_space, *(lambda cpu=cpu: in_kernel(cpu) for cpu in CPUS)]
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(loaded.descriptor)


def flows_in(kernel: KernelTables) -> list[int]:
    flows = kernel.tables.flows
    return flows["low"][flows["state"] != 0].tolist()  # type: ignore[no-any-return]


def assert_nothing_is_left_half_done(kernel: KernelTables) -> None:
    flags = kernel.tables.flows["version"].astype(np.uint64) << np.uint64(48)
    assert not (flags & np.uint64(LOCKED | CLAIMED)).any()


def barriers(program: str) -> int:
    """The number of atomic operations on the stack in a program."""
    code = np.frombuffer(objects.compiled(f"tests.targets.bpf.{program}").section(objects.SECTION), np.uint64)
    return int(((code & np.uint64(0xFFF)) == np.uint64(STACK << 8 | ATOMIC_64)).sum())


def test_only_a_machine_that_may_reorder_loads_needs_barriers_between_them() -> None:
    assert barriers("weak_order:race") > 0
    assert (barriers("flow_race:race") == 0) == LOADS_ARE_ORDERED


@pytest.mark.parametrize("module", ["flow_race", "weak_order"])
def test_all_who_enter_the_same_flow_at_once_agree_on_its_backend(spacious: KernelTables, module: str) -> None:
    """Each has its own backend; random operations do not find the races that this finds."""
    together = 0
    for _ in range(MOST_ROUNDS):
        numbers(spacious)[:] = 0
        numbers(spacious)[EXPECTED] = sum(1 << racer for racer in (*CPUS, USER))
        spacious.tables.flows[:] = np.zeros((), spacious.tables.flows.dtype)
        at_once(spacious, f"{module}:race", race_in_user_space, lambda: numbers(spacious)[TURN] == RACE_FLOWS)
        said = numbers(spacious)[SAID:][: RACERS * RACE_FLOWS].reshape(RACERS, RACE_FLOWS)
        latest, first = said.max(0), np.where(said == 0, RACERS + 1, said).min(0)
        assert (first == latest).all(), f"{(first != latest).sum()} flows have two backends"
        assert sorted(flows_in(spacious)) == list(range(1, RACE_FLOWS + 1))
        together += int(((said != 0).sum(0) > 1).sum())
        if together >= LEAST_AT_ONCE:
            break
    assert together >= LEAST_AT_ONCE
    assert_nothing_is_left_half_done(spacious)


def test_no_flow_gets_another_s_backend_or_a_second_entry(crowded: KernelTables) -> None:
    """Twice as many flows as entries: they are entered, found, trusted, moved, closed, deleted and evicted."""
    rows = numbers(crowded)[: 8 * RACERS].reshape(RACERS, 8)
    rows[:, RANDOM] = np.arange(1, RACERS + 1, dtype=np.uint64) * np.uint64(0x2545F4914F6CDD1D)
    crowded.tables.settings["trusted_ways"] = 2
    busy = [*CPUS, USER]
    for _ in range(HAMMER_ROUNDS):
        rows[:, HITS] = 0
        at_once(crowded, "flow_race:hammer", hammer_in_user_space, lambda: bool((rows[busy, HITS] > LEAST_HITS).all()))
        there = flows_in(crowded)
        assert len(there) == len(set(there)) <= KEYS
        assert not rows[:, WRONG].any()
    assert (crowded.tables.flows["state"] == TRUSTED).any()
    assert crowded.tables.lookups[:, CONTENDED].sum() < crowded.tables.lookups.sum() / 10
    assert_nothing_is_left_half_done(crowded)
