"""Known sources: a sketch of the sources that recently sent a datagram to a service, in a table of fixed size.

A datagram does not say whether it begins a flow. For rate limits it does so if its source is not in this sketch: a
Bloom filter (Bloom, CACM 1970) whose cells are times, and whose CELLS cells of one source lie in one cache line
(Putze, Sanders and Singler, WEA 2007). A source is known if all of its cells are younger than KNOWN_FOR. Only sources
that were admitted are entered, so a flood with invented sources enters no more than the service's limit.
"""

from lbmux.datapath.context import source_limit, sources
from lbmux.datapath.flow_lookup import second_hash
from lbmux.datapath.hashing import keyed
from lbmux.datapath.memory import int64, step, u16, u32
from lbmux.datapath.tables import SOURCE_CELLS, source_cell_row

CELLS = 4
CELL_BITS = SOURCE_CELLS.bit_length() - 1
TIME_SHIFT = 10
"""Cells count time in units of 1024 ticks (1.07 s), modulo 2**15."""
TIME_MASK, WRITTEN = 0x7FFF, 0x8000
KNOWN_FOR = 32
"""How long a source is known after its last datagram, in these units: 34 s."""


@step
def source_hash(setting, packet, index):
    """Hash the source and the service."""
    return keyed(setting, u32(0), packet.source_high, packet.source_low, u32(index), u32(packet.protocol))


@step
def line_of(context, hashed):
    """Return the line of the cells of a source."""
    return int64(hashed) & (source_limit(context) - 1)


@step
def cell_at(context, hashed, number):
    """Return one of the CELLS cells of a source."""
    line = line_of(context, hashed)
    cell = int64(second_hash(hashed) >> u32(number * CELL_BITS)) & (SOURCE_CELLS - 1)
    return source_cell_row(sources(context), line * SOURCE_CELLS + cell)


@step
def is_known(context, hashed, now):
    """Return whether the source of this hash is known."""
    unit, unknown = u32(now >> u32(TIME_SHIFT)), u32(0)
    for number in range(CELLS):
        seen = cell_at(context, hashed, number).seen
        age = u32(unit - u32(seen)) & u32(TIME_MASK)
        unknown = u32(unknown | u32(u32(KNOWN_FOR - 1) - age) | u32(~u32(u32(seen) << u32(16))))
    return (unknown >> u32(31)) == u32(0)


@step
def enter_source(context, hashed, now):
    """Make the source of this hash known from now on. Its cells are written once in a unit of time."""
    written = u16(u32(now >> u32(TIME_SHIFT)) | u32(WRITTEN))
    for number in range(CELLS):
        cell = cell_at(context, hashed, number)
        if cell.seen != written:
            cell.seen = written
