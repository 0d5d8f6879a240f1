"""Which backend a packet of a flow gets after a change of the Maglev table, on whichever CPU it arrives."""

import numpy as np
import pytest

from lbmux.codegen.compiled import compiled
from lbmux.datapath.choose import agreed
from lbmux.datapath.context import context_at
from lbmux.datapath.flow_lookup import word_of
from lbmux.datapath.memory import int64
from lbmux.datapath.tables import NEW, UNTRUSTED
from lbmux.datapath.verdicts import Verdict
from lbmux.targets.native import Worker
from tests.datapath.craft import ACK, SYN, Craft
from tests.datapath.harness import Frames, Machine
from tests.datapath.one_service import IDLE, VIP, forwarded, mux, re_slot, send
from tests.datapath.plain_mux import Backend, Service
from tests.datapath.plain_packet import UDP


def test_a_flow_keeps_its_backend_on_another_cpu_after_a_change_of_the_table() -> None:
    """It does so in the kernel, and in user space beside it."""
    machine = mux(slots=(0,), workers=3)
    first, second, user = (Worker(machine.tables, number, plain=number < 2) for number in range(3))
    assert forwarded(second, Craft(), 990) == [(Verdict.FORWARDED, 0)]
    re_slot(machine, 5, changed=995)
    assert forwarded(first, Craft(flags=SYN, source_port=1), 1000) == [(Verdict.FORWARDED, 5)]
    for worker in (first, user, second):
        assert forwarded(worker, Craft(), 1000) == [(Verdict.FORWARDED, 0)]
    assert forwarded(first, Craft(source_port=2), 1001) == [(Verdict.FORWARDED, 0)], "another mux may have known it"
    assert machine.tables.lookups[:, NEW].sum() == 3


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


@pytest.mark.parametrize("changed", [900, None], ids=["changing", "steady"])
@pytest.mark.parametrize("flags", [ACK, SYN])
def test_a_flow_that_changes_its_worker_has_its_entry_there(changed: int | None, flags: int) -> None:
    machine = mux(slots=(0,), workers=2)
    machine.at(1).forward(Frames([Craft(flags=ACK).frame()]), 990)
    re_slot(machine, 5, changed=changed)
    assert send(machine, [Craft(flags=flags).frame()], 1000) == [0]
    assert machine.lookups()["hit"] == 1


def test_a_backend_that_another_cpu_entered_at_the_same_moment_is_the_flow_s() -> None:
    machine = mux(slots=(0,))
    machine.tables.backends[6]["generation"] = 1
    for state, generation, expected in ((1, 0, 5), (1, 1, 6), (0, 1, 5)):
        machine.tables.backends[6]["state"] = state
        assert _agreed(machine.worker.address, _word_of(6, generation), 5) == expected
    assert _agreed(machine.worker.address, np.uint64(0), 5) == 5, "the flow got no entry"


@compiled
def _agreed(context_address, word, target):  # type: ignore[no-untyped-def]
    return agreed(context_at(context_address), word, int64(target))


@compiled
def _word_of(target, generation):  # type: ignore[no-untyped-def]
    return word_of(0, UNTRUSTED, generation, target)
