"""Packets without a flow entry after a change of the Maglev table: where the flow was before is looked for."""

import pytest

from lbmux.datapath.choose import KERNEL_TABLES
from lbmux.datapath.verdicts import Verdict
from lbmux.targets.native import Worker
from tests.datapath.craft import ACK, SYN, Craft
from tests.datapath.harness import Frames, Machine
from tests.datapath.one_service import IDLE, VIP, forwarded, mux, re_slot, send
from tests.datapath.plain_mux import Backend, Service
from tests.datapath.plain_packet import UDP


def test_the_kernel_punts_a_packet_whose_slot_changed_its_backend() -> None:
    """User space searches all tables and enters the flow in its own, where the kernel finds it."""
    machine = mux(slots=(0,), workers=KERNEL_TABLES + 3)
    numbers = (0, KERNEL_TABLES + 1, KERNEL_TABLES + 2)
    first, second, user = (Worker(machine.tables, number, plain=number < numbers[2]) for number in numbers)
    assert forwarded(second, Craft(), 990) == [(Verdict.FORWARDED, 0)]
    re_slot(machine, 5, changed=995)
    assert forwarded(first, Craft(flags=SYN, source_port=1), 1000) == [(Verdict.FORWARDED, 5)]
    assert forwarded(first, Craft(), 1000) == [(Verdict.UNSETTLED, -1)]
    assert forwarded(user, Craft(), 1000) == [(Verdict.FORWARDED, 0)]
    assert forwarded(first, Craft(), 1001) == [(Verdict.FORWARDED, 0)]
    assert forwarded(user, Craft(source_port=2), 1001) == [(Verdict.FORWARDED, 0)], "another mux may have known it"
    assert forwarded(first, Craft(source_port=2), 1001) == [(Verdict.FORWARDED, 0)]


@pytest.mark.parametrize(
    "flags, state, expected", [(ACK, 1, 0), (ACK, 2, 0), (ACK, 0, 5), (SYN, 1, 5)], ids=["up", "drained", "gone", "new"]
)
def test_a_connection_of_a_lost_mux_has_the_backend_from_before_the_last_change(
    flags: int, state: int, expected: int
) -> None:
    """A mux that never saw it, and whose table has changed meanwhile as every mux's has."""
    machine = mux(slots=(0,))
    re_slot(machine, 5, changed=995)
    machine.tables.backends[0]["state"] = state
    assert send(machine, [Craft(flags=flags).frame()], 1000) == [expected]
    assert machine.lookups().get("base", 0) == (expected == 0)
    assert send(machine, [Craft(flags=ACK).frame()], 1001) == [expected], "it is a flow like any other"


def test_a_datagram_goes_by_the_table_in_force() -> None:
    """Nothing in a datagram tells whether it begins a flow."""
    machine = Machine.make(16)
    machine.install_mux([Service(VIP, UDP, 53, (0,), IDLE)], [Backend(bytes([10, 1, 0, at])) for at in range(8)])
    re_slot(machine, 5, changed=995)
    assert send(machine, [Craft(protocol=UDP, destination_port=53).frame()], 1000) == [5]


def test_the_kernel_searches_the_tables_of_some_cpus() -> None:
    """A flow that changes its CPU is then found while user space is stopped, too."""
    machine = mux(slots=(0,), workers=KERNEL_TABLES + 1)
    first, last = (Worker(machine.tables, number, plain=True) for number in (0, KERNEL_TABLES - 1))
    assert forwarded(last, Craft(), 990) == [(Verdict.FORWARDED, 0)]
    re_slot(machine, 5, changed=995)
    assert forwarded(first, Craft(), 1000) == [(Verdict.FORWARDED, 0)]


@pytest.mark.parametrize("changed, flags, expected", [(900, ACK, 0), (900, SYN, 5), (None, ACK, 5)])
def test_a_flow_that_changes_its_worker_after_a_change_of_the_table(
    changed: int | None, flags: int, expected: int
) -> None:
    """It keeps its backend, unless it begins or the slot is steady again."""
    machine = mux(slots=(0,), workers=2)
    batch = Frames([Craft(flags=ACK).frame()])
    machine.at(1).forward(batch, 990)
    assert batch.target.tolist() == [0]
    re_slot(machine, 5, changed=changed)
    assert send(machine, [Craft(flags=flags).frame()], 1000) == [expected]
    assert machine.lookups().get("elsewhere", 0) == (expected == 0)
    assert send(machine, [Craft(flags=ACK).frame()], 1001) == [expected]
    assert machine.lookups()["hit"] == 1
