"""Packets of a pcapng capture: compiled code that goes through its blocks (draft-ietf-opsawg-pcapng, section 4).

It extracts enhanced, simple and obsolete packet blocks, skips other blocks, and stops at blocks that describe sections
and interfaces, which Python reads (lbmux.frames.pcapng).
"""

from lbmux.codegen.compiled import compiled
from lbmux.datapath.memory import at_address, int64, layout, rows, step, swap16, u64
from lbmux.frames.captured_frames import LARGEST_BYTES, ScanEnd, fits_arena, host_order, put
from lbmux.frames.links import UNKNOWN_LINK

SECTION_BLOCK, INTERFACE_BLOCK, OBSOLETE_BLOCK, SIMPLE_BLOCK, ENHANCED_BLOCK = 0x0A0D0D0A, 1, 2, 3, 6
BLOCK_BYTES, TRAILER_BYTES = 12, 4
LARGEST_BLOCK_BYTES = 1 << 20
"""The largest block that is parsed: a packet of LARGEST_BYTES, and three times as much for its options."""

PACKET = layout(
    ("type", "u4"), ("length", "u4"), ("interface", "u4"), ("time_high", "u4"), ("time_low", "u4"),
    ("captured", "u4"), ("original", "u4"),
)  # fmt: skip
"""The start of an enhanced packet block. An obsolete one has a 16-bit interface and 16 bits of drops instead."""
OBSOLETE = layout(("type", "u4"), ("length", "u4"), ("interface", "u2"), ("drops", "u2"))
SIMPLE = layout(("type", "u4"), ("length", "u4"), ("original", "u4"))
WORD = layout(("value", "u4"))
PACKET_BYTES, SIMPLE_BYTES = PACKET.itemsize, SIMPLE.itemsize
packet_at, obsolete_at, simple_at, word_at = rows(PACKET), rows(OBSOLETE), rows(SIMPLE), rows(WORD)

INTERFACE = layout(
    ("multiply", "u8"), ("divide", "u8"), ("offset_ns", "i8"), ("binary", "u4"), ("kind", "u4"), ("snap", "u4"),
    ("link", "u4"), ("skipped", "u8"),
)  # fmt: skip
"""``binary``: times are in units of 2**-binary s; if it is 0, ``multiply`` and ``divide`` convert them to nanoseconds.
``skipped``: packets that were skipped because of an unknown link type."""
interface_at = rows(INTERFACE)

MORE, FULL, SKIP, ON_SECTION, ON_INTERFACE = (int(end) for end in list(ScanEnd)[:5])
ABSURD_LENGTH, BLOCK_LENGTH, BLOCK_TRAILER, CAPTURED_LENGTH, NO_INTERFACE = (int(end) for end in list(ScanEnd)[5:10])
IS_PACKET, IS_FOREIGN, IS_OTHER = -1, -2, -3
"""Blocks after which scanning continues: a packet, a packet of an unknown link type, any other block."""
SECOND_NS = 1_000_000_000
COARSEST_BINARY = 32


@step
def _time_ns(high, low, interface):
    units = u64(high) << u64(32) | u64(low)
    if interface.binary == 0:
        return int64(units * interface.multiply // interface.divide) + interface.offset_ns
    shift = u64(interface.binary)
    if shift > u64(COARSEST_BINARY):  # a resolution finer than a quarter of a nanosecond is dropped
        units = units >> (shift - u64(COARSEST_BINARY)) if shift < u64(COARSEST_BINARY + 64) else u64(0)
        shift = u64(COARSEST_BINARY)
    part = units & ((u64(1) << shift) - u64(1))
    return int64((units >> shift) * u64(SECOND_NS) + (part * u64(SECOND_NS) >> shift)) + interface.offset_ns


@step
def _interface_number(kind, block, swapped):
    if kind == ENHANCED_BLOCK:
        return int64(host_order(packet_at(at_address(block), 0).interface, swapped))
    if kind == OBSOLETE_BLOCK:
        short = obsolete_at(at_address(block), 0).interface
        return int64(swap16(short)) if swapped else int64(short)
    return int64(0)


@step
def _kind_of(block, left, swapped, interfaces, described):
    """Return (kind or why scanning stops, block type, length in bytes, interface) of the block at the front."""
    if left < BLOCK_BYTES:
        return MORE, int64(0), int64(0), int64(0)
    head = packet_at(at_address(block), 0)
    kind, size = int64(host_order(head.type, swapped)), int64(host_order(head.length, swapped))
    if kind == SECTION_BLOCK:
        return ON_SECTION, kind, size, int64(0)
    if kind == INTERFACE_BLOCK:
        return ON_INTERFACE, kind, size, int64(0)
    if size < BLOCK_BYTES or size % 4 != 0:
        return BLOCK_LENGTH, kind, size, int64(0)
    if kind not in (ENHANCED_BLOCK, OBSOLETE_BLOCK, SIMPLE_BLOCK):
        return IS_OTHER, kind, size, int64(0)
    number = _interface_number(kind, block, swapped)
    if number < described and interface_at(at_address(interfaces), number).kind == UNKNOWN_LINK:
        return IS_FOREIGN, kind, size, number
    return ABSURD_LENGTH if size > LARGEST_BLOCK_BYTES else IS_PACKET, kind, size, number


@step
def _at_the_end(result, count):
    """Return why scanning stops at a block whose end is not in memory yet."""
    if result == IS_PACKET:
        return MORE
    return FULL if result == IS_FOREIGN and count != 0 else SKIP  # the block is read again after FULL; count it once


@step
def _count_skipped(result, interfaces, number):
    if result == IS_FOREIGN:
        interface_at(at_address(interfaces), number).skipped += u64(1)


@step
def _packet(block, kind, size, swapped, own, last_ns):
    """Return (IS_PACKET or the fault, offset of its bytes, captured and original length, time in ns)."""
    head, before = packet_at(at_address(block), 0), int64(SIMPLE_BYTES if kind == SIMPLE_BLOCK else PACKET_BYTES)
    if size < before + TRAILER_BYTES:
        return BLOCK_LENGTH, before, int64(0), int64(0), last_ns
    if kind == SIMPLE_BLOCK:  # a simple block has no time: use the previous packet's
        original = int64(host_order(simple_at(at_address(block), 0).original, swapped))
        captured = min(original, int64(own.snap)) if own.snap != 0 else original
    else:
        captured, original = int64(host_order(head.captured, swapped)), int64(host_order(head.original, swapped))
        last_ns = _time_ns(host_order(head.time_high, swapped), host_order(head.time_low, swapped), own)
    if captured > LARGEST_BYTES:
        return ABSURD_LENGTH, before, captured, original, last_ns
    if before + captured + TRAILER_BYTES > size:
        return CAPTURED_LENGTH, before, captured, original, last_ns
    return IS_PACKET, before, captured, original, last_ns


@compiled
def scan(
    memory, start, end, swapped, interfaces, described, arena, address, length, missing, flags, interface, time_ns,
    count, capacity, last_ns,
):  # fmt: skip
    """Add packets to the arrays from ``count`` on. Return (why it stopped, where, packets, time of the last)."""
    at = start
    while True:
        block = memory + u64(at)
        result, kind, size, number = _kind_of(block, end - at, swapped, interfaces, described)
        if result >= 0:
            return result, at, count, last_ns
        if end - at < size:
            stop = _at_the_end(result, count)
            _count_skipped(result if stop == SKIP else IS_OTHER, interfaces, number)
            return stop, at, count, last_ns
        trailer = word_at(at_address(block + u64(size - TRAILER_BYTES)), 0).value
        if int64(host_order(trailer, swapped)) != size:
            return BLOCK_TRAILER, at, count, last_ns
        if result != IS_PACKET:
            _count_skipped(result, interfaces, number)
            at += size
            continue
        if count == capacity:
            return FULL, at, count, last_ns
        if number >= described:
            return NO_INTERFACE, at, count, last_ns
        own = interface_at(at_address(interfaces), number)
        result, before, captured, original, last_ns = _packet(block, kind, size, swapped, own, last_ns)
        if result >= 0:
            return result, at, count, last_ns
        if not fits_arena(arena, address, length, count, captured, original):
            return FULL, at, count, last_ns
        put(arena, address, length, missing, flags, count, block + u64(before), captured, original, own.kind)
        time_ns[count], interface[count] = last_ns, number
        at += size
        count += 1
