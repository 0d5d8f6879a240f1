"""The simulation's rule and the data path's slots agree: the same table changes make the same pairs."""

import numpy as np

from lbmux.codegen.compiled import compiled_nogil
from lbmux.datapath.tables import NO_BASE
from lbmux.tables import slot_pairs
from lbmux.tools.simulate.flow_policies import BASE
from lbmux.tools.simulate.slot_rule import NONE, SLOT, change_slot


@compiled_nogil
def change(setting, slots, table):  # type: ignore[no-untyped-def]
    for at in range(len(slots)):
        change_slot(setting[0], slots[at], table[at], 1.0)


def test_pairs_are_the_same_after_each_of_many_changes() -> None:
    rng = np.random.default_rng(8)
    table = rng.integers(0, 4, 500).astype(np.uint16)
    slots, pairs, removed = np.zeros(500, SLOT), slot_pairs.steady(table), np.zeros(4, np.bool_)
    slots["current"] = slots["base"] = table
    for number in range(30):
        table = np.where(rng.uniform(size=500) < 0.3, rng.integers(0, 4, 500), table).astype(np.uint16)
        change(BASE.settings(), slots, table)
        pairs = slot_pairs.changed(pairs, table, removed)
        if number % 7 == 6:  # a sweep settles all slots
            slot_pairs.settle(pairs, slot_pairs.changing(pairs))
            slots["base"][slots["marked"] != 0] = NONE
        bases = np.where(slots["base"] == NONE, NO_BASE, slots["base"])
        assert pairs["backend"].tolist() == slots["current"].tolist()
        assert pairs["base"].tolist() == bases.tolist()
    assert len({*bases.tolist()}) == 5
