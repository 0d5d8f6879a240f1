"""Counters: where the data path counts a packet's verdict and the outcome of its look-up in the flow table.

Each worker has its own rows, which no other worker writes, so plain additions are enough.
"""

from lbmux.datapath.context import lookups, verdicts
from lbmux.datapath.memory import int64, step, u64
from lbmux.datapath.tables import LOOKUP_ROWS, count_row, lookup_row
from lbmux.datapath.verdicts import VERDICTS


@step
def count_verdict(context, worker, verdict, length):
    """Count a packet of ``length`` bytes with its verdict."""
    row = count_row(verdicts(context), worker * VERDICTS + (int64(verdict) & (VERDICTS - 1)))
    row.packets += u64(1)
    row.bytes += u64(length)


@step
def count_lookup(context, worker, outcome):
    """Count the outcome of a look-up in the flow table (HIT, NEW, ...)."""
    lookup_row(lookups(context), worker * LOOKUP_ROWS + outcome).count += u64(1)
