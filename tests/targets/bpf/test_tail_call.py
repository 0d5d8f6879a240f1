"""An edge's two programs: the mux's calls the agent's with what it does not send itself."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lbmux.targets.bpf import syscall
from lbmux.targets.bpf.maps import AGENT_SLOT, KernelTables
from lbmux.targets.bpf.syscall import Attach
from lbmux.targets.bpf.test_runs import TestRunner, on_first_cpu
from lbmux.wire.numbers import LOOPBACK
from tests.datapath.craft import Craft
from tests.datapath.harness import Machine
from tests.datapath.test_mux import backends, services
from tests.targets.bpf.twins import copy_tables

pytestmark = pytest.mark.root
XDP_ABORTED, XDP_PASS, XDP_TX = 0, 2, 3
RETURN_ABORTED = bytes.fromhex("b700000000000000 9500000000000000")
"""An agent's program that says that it was called: r0 = XDP_ABORTED; exit."""
OTHER = Craft(destination=bytes([203, 0, 113, 9]))


@dataclass
class Edge:
    slot: int
    tables: KernelTables
    mux: TestRunner

    def result(self, frame: bytes) -> int:
        return self.mux.run(frame).result


@pytest.fixture
def edge() -> Iterator[Edge]:
    machine = Machine.make(workers=65)
    machine.install_mux(services(), backends())
    slot = syscall.create_program_slot("slot")
    with KernelTables.create(machine.tables.sizes) as kernel, on_first_cpu():
        copy_tables(machine.tables, kernel.tables)
        loaded = kernel.load("edge_mux_xdp", Attach.XDP, rings={AGENT_SLOT: slot})
        yield Edge(slot, kernel, TestRunner(loaded.descriptor))
        os.close(loaded.descriptor)
    os.close(slot)


def fill(slot: int) -> int:
    """Put an agent's program into the slot; returns its id."""
    program = syscall.load_program(Attach.XDP, RETURN_ABORTED, "agent").descriptor
    syscall.fill_program_slot(slot, program)
    number = syscall.program_id(program)
    os.close(program)
    return number


def test_a_slot_has_the_program_that_was_put_into_it(edge: Edge) -> None:
    assert syscall.program_in_slot(edge.slot) == 0
    number = fill(edge.slot)
    assert syscall.program_in_slot(edge.slot) == number
    syscall.empty_program_slot(edge.slot)
    assert syscall.program_in_slot(edge.slot) == 0


def test_the_agent_gets_what_the_mux_leaves_to_the_stack(edge: Edge) -> None:
    assert edge.result(OTHER.frame()) == XDP_PASS, "without an agent"
    fill(edge.slot)
    assert edge.result(OTHER.frame()) == XDP_ABORTED


def test_the_agent_gets_what_the_mux_forwards_to_its_own_host_and_nothing_else(edge: Edge) -> None:
    fill(edge.slot)
    edge.tables.tables.backends["interface"] = 0
    assert edge.result(Craft().frame()) == XDP_TX
    edge.tables.tables.backends["interface"] = LOOPBACK
    assert edge.result(Craft().frame()) == XDP_ABORTED
