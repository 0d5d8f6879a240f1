"""What a killed process left locked or half written is free again, and nothing else changes."""

import numpy as np

from lbmux.datapath.tables import CLAIMED, LOCKED, OVERFLOWED
from lbmux.tables.abandoned_entries import free, half_done
from tests.datapath.craft import Craft
from tests.datapath.one_service import clients, mux, send


def test_a_locked_bucket_and_a_claimed_entry_are_free_again() -> None:
    machine = mux(buckets=1)
    flows = machine.tables.flows
    flows["version"][0, 0] = (LOCKED | OVERFLOWED) >> 48
    flows["version"][0, 2] = 5 << 3 | CLAIMED >> 48
    assert free(machine.tables, half_done(machine.tables)) == 2
    assert flows["version"][0].tolist() == [OVERFLOWED >> 48, 0, 5 << 3, 0]
    send(machine, clients(20))
    assert (flows["state"] != 0).all()


def test_live_entries_stay_as_they_are() -> None:
    machine = mux(buckets=8)
    send(machine, clients(20))
    before = machine.tables.flows.copy()
    assert free(machine.tables, half_done(machine.tables)) == 0
    assert machine.tables.flows.tolist() == before.tolist()


def test_an_entry_that_is_still_being_written_stays_claimed() -> None:
    machine = mux(buckets=1)
    flows = machine.tables.flows
    flows["version"][0, 1] = CLAIMED >> 48
    entries = half_done(machine.tables)
    flows["version"][0, 1] = 1 << 3 | CLAIMED >> 48
    assert free(machine.tables, entries) == 0
    assert int(flows["version"][0, 1]) == 1 << 3 | CLAIMED >> 48


def test_a_flow_gets_an_entry_in_a_bucket_that_was_left_locked() -> None:
    machine = mux(buckets=1)
    machine.tables.flows["version"][0, 0] = LOCKED >> 48
    free(machine.tables, half_done(machine.tables))
    send(machine, [Craft().frame()])
    assert np.count_nonzero(machine.tables.flows["state"]) == 1
