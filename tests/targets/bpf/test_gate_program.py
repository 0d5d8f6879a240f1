"""The gate in the kernel counts and drops what it does in user space, and calls the mux's program with the rest."""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lbmux.datapath.verdicts import Verdict
from lbmux.targets.bpf import syscall
from lbmux.targets.bpf.maps import MUX_SLOT, KernelTables
from lbmux.targets.bpf.syscall import Attach
from lbmux.targets.bpf.test_runs import TestRunner, on_first_cpu
from lbmux.targets.regions import now_ticks
from tests.datapath.craft import Craft
from tests.datapath.harness import Frames
from tests.datapath.test_gate import VIPS, gated, random_craft, usage
from tests.tables.test_mux_tables import Mux
from tests.targets.bpf.test_tail_call import RETURN_ABORTED, XDP_ABORTED, XDP_PASS
from tests.targets.bpf.twins import copy_tables

pytestmark = pytest.mark.root
XDP_DROP = 1
COUNTS = ("packets", "begins", "judged", "follows", "begun", "completed", "dropped")
OTHER = Craft(destination=bytes([203, 0, 113, 9]))


@dataclass
class Gate:
    """The program, the slot behind it, and a mux in user space whose tables it began with."""

    slot: int
    kernel: KernelTables
    program: TestRunner
    mux: Mux

    def result(self, craft: Craft) -> int:
        return self.program.run(craft.frame()).result

    @property
    def usage(self) -> list[int]:
        row = self.mux.control.vips[next(vip for vip in self.mux.control.vips if str(vip) == "192.0.2.1")]
        return [int(self.kernel.tables.vips[row][name]) for name in COUNTS]


@pytest.fixture
def gate() -> Iterator[Gate]:
    mux, slot = gated(), syscall.create_program_slot("slot")
    with KernelTables.create(mux.tables.sizes) as kernel, on_first_cpu():
        copy_tables(mux.tables, kernel.tables)
        loaded = kernel.load("gate_xdp", Attach.XDP, rings={MUX_SLOT: slot})
        yield Gate(slot, kernel, TestRunner(loaded.descriptor), mux)
        os.close(loaded.descriptor)
    os.close(slot)


def fill(slot: int) -> None:
    program = syscall.load_program(Attach.XDP, RETURN_ABORTED, "mux").descriptor
    syscall.fill_program_slot(slot, program)
    os.close(program)


def test_it_counts_what_user_space_counts(gate: Gate) -> None:
    rng = random.Random(2)
    crafts = [random_craft(rng) for _ in range(1000)]
    fill(gate.slot)
    assert {gate.result(craft) for craft in crafts} == {XDP_ABORTED}
    gate.mux.worker.forward(Frames([craft.frame() for craft in crafts]), now_ticks())
    twin = usage(gate.mux, "192.0.2.1")
    assert gate.usage == [twin[name] for name in COUNTS] and gate.usage[2] > 10


def test_it_drops_and_counts_everything_to_a_black_hole(gate: Gate) -> None:
    fill(gate.slot)
    gate.kernel.tables.vips["until"] = now_ticks() + 10_000
    rng = random.Random(3)
    assert {gate.result(random_craft(rng)) for _ in range(100)} == {XDP_DROP}
    assert (gate.usage[0], gate.usage[-1]) == (100, 100)
    assert gate.kernel.tables.verdicts["packets"][:, Verdict.BLACK_HOLED].sum() == 100
    assert gate.result(OTHER) == XDP_ABORTED
    gate.kernel.tables.vips["until"] = now_ticks() - 10
    assert gate.result(Craft(destination=VIPS["192.0.2.1"])) == XDP_ABORTED, "its time is over"


def test_without_a_program_behind_it_frames_go_to_user_space(gate: Gate) -> None:
    assert gate.result(OTHER) == gate.result(Craft()) == XDP_PASS
