"""The slots of a Maglev table as pairs (backend, base), and the effect of a change on them: pure functions on arrays.

``base`` is the backend of those of the slot's flows that have no entry in the flow table. A slot is in one of three
states (docs/flow-state.md; the idea is from JET, Mendelson et al., CoNEXT 2021):

- **steady**: base and backend are the same. All flows are there, and none needs an entry.
- **changing**: base is the backend before the first of the recent changes. A flow that began since has an entry.
- **exceptions**: base is NO_BASE. Flows without an entry are at the backend; entries name the others.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.datapath.tables import FORMER_TABLE, NO_BACKEND_ROW, NO_BASE, SLOT

Pairs = NDArray[Any]
"""An array of SLOT."""


def steady(table: NDArray[np.uint16]) -> Pairs:
    """Return the pairs of a service's first table."""
    pairs = np.empty(len(table), SLOT)
    pairs["backend"] = pairs["base"] = table
    return pairs


def resized(table: NDArray[np.uint16]) -> Pairs:
    """Return the pairs of a table that follows one of another size, which has the bases."""
    pairs = steady(table)
    pairs["base"] = FORMER_TABLE
    return pairs


def with_exceptions(table: NDArray[np.uint16]) -> Pairs:
    """Return the pairs of a table that may have flows at other backends, all of which have entries."""
    pairs = steady(table)
    pairs["base"] = NO_BASE
    return pairs


def changed(before: Pairs, table: NDArray[np.uint16], removed: NDArray[np.bool_]) -> Pairs:
    """Return the pairs of a table that follows another of its size.

    ``removed``: for each row of backends, whether its backend goes away with this change. Its flows end with it, so no
    slot needs it as a base.
    """
    pairs = steady(table)
    pairs["base"] = before["base"]
    moved = np.flatnonzero(before["backend"] != table)  # usually few, so the rest costs little
    base = np.where(_is_changing(before[moved]), before["base"][moved], before["backend"][moved])
    pairs["base"][moved] = np.where(base == table[moved], NO_BASE, base)
    named = changing(pairs)
    named = named[pairs["base"][named] != FORMER_TABLE]
    lost = named[removed[pairs["base"][named]]]
    was_steady = before["base"][lost] == before["backend"][lost]
    pairs["base"][lost] = np.where(was_steady, table[lost], NO_BASE)
    return pairs


def keep_steady(before: Pairs, pairs: Pairs) -> None:
    """Leave the slots steady that were: their flows go with them to the new backends."""
    was_steady = before["base"] == before["backend"]
    pairs["base"][was_steady] = pairs["backend"][was_steady]


def changing(pairs: Pairs) -> NDArray[np.uint32]:
    """Return the slots that are changing."""
    return np.flatnonzero(_is_changing(pairs)).astype(np.uint32)


def began(before: Pairs, after: Pairs) -> NDArray[np.uint32]:
    """Return the slots that are changing and were not before."""
    return np.flatnonzero(_is_changing(after) & ~_is_changing(before)).astype(np.uint32)


def forget_row(pairs: Pairs, row: int) -> None:
    """Mark that another backend gets this row: no flow without an entry uses it any more."""
    pairs["base"][(pairs["base"] == row) & (pairs["backend"] != row)] = NO_BASE


def settle(pairs: Pairs, due: NDArray[np.uint32]) -> None:
    """Give slots that have been changing for long enough exceptions: every flow without an entry has ended."""
    over = due[_is_changing(pairs[due])]
    pairs["base"][over] = NO_BASE


def end_exceptions(pairs: Pairs, deviates: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Make the slots with exceptions steady if no entry ``deviates`` from the slot's backend. Return which they are."""
    over = (pairs["base"] == NO_BASE) & (pairs["backend"] != NO_BACKEND_ROW) & ~deviates
    pairs["base"][over] = pairs["backend"][over]
    return np.asarray(over)


def is_marked(pairs: Pairs) -> NDArray[np.bool_]:
    """Return for each slot whether its flows are looked up."""
    return np.asarray(pairs["base"] != pairs["backend"])


def bases(pairs: Pairs, former: Pairs) -> set[int]:
    """Return the rows of backends that may have flows without an entry. ``former``: the table of another size."""
    rows = set[int](np.unique(pairs["base"][_is_changing(pairs)]).tolist())
    return rows - {FORMER_TABLE, NO_BASE} | (bases_of_table(former) if FORMER_TABLE in rows else set())


def bases_of_table(former: Pairs) -> set[int]:
    """Return the rows of backends that a former table's flows without an entry have."""
    rows = np.unique(np.where(_is_changing(former), former["base"], former["backend"]))
    return set(rows.tolist()) - {FORMER_TABLE, NO_BASE, NO_BACKEND_ROW}


def _is_changing(pairs: Pairs) -> NDArray[np.bool_]:
    return np.asarray((pairs["base"] != pairs["backend"]) & (pairs["base"] != NO_BASE))
