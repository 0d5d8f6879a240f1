"""Frees entries of the flow table that a process left locked or half written when it was killed.

The next process calls ``half_done``, waits, and calls ``free`` before it takes packets. The kernel's programs never
leave such an entry, because nothing can kill them.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lbmux.codegen.compiled import address_of, compiled
from lbmux.datapath.atomics import compare_exchange
from lbmux.datapath.memory import advance, at_address, int64, u64
from lbmux.datapath.tables import CLAIMED, FLOW, FLOW_WORD, LOCKED
from lbmux.targets.regions import Tables

FLAGS_SHIFT, FLOW_BYTES = 48, FLOW.itemsize


class HalfDone(NamedTuple):
    """Places in the flow table whose words say that a CPU or a process is writing there, and these words."""

    places: NDArray[np.intp]
    words: NDArray[np.uint64]


def half_done(tables: Tables) -> HalfDone:
    """Return the entries that are being written, or were when their process was killed."""
    flows = tables.flows.reshape(-1)
    places = np.flatnonzero(flows["version"] & ((LOCKED | CLAIMED) >> FLAGS_SHIFT))
    entries: NDArray[Any] = flows[places].view(FLOW_WORD)
    return HalfDone(places, entries["word"].copy())


def free(tables: Tables, entries: HalfDone) -> int:
    """Unlock or empty those of the entries whose words have not changed. Return their number."""
    return int(_free(address_of(tables.flows), entries.places, entries.words))


@compiled
def _free(flows, places, words):  # type: ignore[no-untyped-def]
    freed = 0
    for index in range(len(places)):
        place = advance(at_address(flows), int64(places[index]) * FLOW_BYTES)
        after = words[index] & ~u64(LOCKED | CLAIMED)
        freed += compare_exchange(place, words[index], after) == words[index]
    return freed
