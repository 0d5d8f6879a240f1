"""The pcapng format (draft-ietf-opsawg-pcapng): a parser of its packets.

It supports sections of either byte order, any number of interfaces with their own link types and time units, and
enhanced, simple and obsolete packet blocks. It skips other blocks, and it skips and counts packets of unknown link
types. Compiled code extracts packets; Python reads the few blocks that describe sections and interfaces.
"""

import struct
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.codegen.compiled import compiled
from lbmux.datapath.memory import at_address, int64, layout, rows, step, swap16, u64
from lbmux.frames.captured_frames import LARGEST_BYTES, CapturedFrames, Found, address_of, has_room, host_order, put
from lbmux.frames.links import LINKS, UNKNOWN, is_bare

SECTION_BLOCK, INTERFACE_BLOCK, OBSOLETE_BLOCK, SIMPLE_BLOCK, ENHANCED_BLOCK = 0x0A0D0D0A, 1, 2, 3, 6
BYTE_ORDER_MAGIC = 0x1A2B3C4D
LEAST_BYTES = {SECTION_BLOCK: 28, INTERFACE_BLOCK: 20}
BLOCK_BYTES, TRAILER_BYTES, ORDER_AT = 12, 4, 8
LARGEST_BLOCK_BYTES = 1 << 20
"""The largest block that is parsed: a packet of LARGEST_BYTES, and three times as much for its options."""
MOST_INTERFACES = 65536

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

MORE, FULL, SKIP, ON_SECTION, ON_INTERFACE = (int(found) for found in list(Found)[:5])
ABSURD_LENGTH, BLOCK_LENGTH, BLOCK_TRAILER, CAPTURED_LENGTH, NO_INTERFACE = (int(found) for found in list(Found)[5:10])
SECOND_NS = 1_000_000_000
OPTION_RESOLUTION, OPTION_OFFSET = 9, 14
COARSEST_BINARY = 32


def is_pcapng(start: bytes) -> bool:
    return start[:4] == struct.pack("<I", SECTION_BLOCK)


class Pcapng:
    """The state of reading one file: the current section's byte order and interfaces."""

    def __init__(self) -> None:
        self.raw = False
        """Whether the first interface of a known link type has frames without an Ethernet header."""
        self.nanoseconds = False
        """Whether that interface's times are finer than microseconds."""
        self.order = "<"
        """The current section's byte order, in struct's notation."""
        self._interfaces = np.zeros(16, INTERFACE)
        self._count = 0
        self._described = 0  # interfaces of all sections with a known link type
        self._last_ns = 0
        self._skipped: Counter[int] = Counter()  # in earlier sections

    @property
    def skipped(self) -> dict[int, int]:
        """The number of skipped packets by link type."""
        total = Counter(self._skipped)
        for row in self._interfaces[: self._count]:
            if row["skipped"]:
                total[int(row["link"])] += int(row["skipped"])
        return dict(total)

    def scan(self, memory: NDArray[np.uint8], start: int, end: int, frames: CapturedFrames) -> tuple[Found, int]:
        """Add the packets in bytes ``start`` to ``end`` of ``memory`` to the batch. Return why and where it stopped."""
        while True:
            code, start, frames.count, self._last_ns = _scan(
                address_of(memory), start, end, self.order == ">", address_of(self._interfaces), self._count,
                frames.arena, frames.address, frames.length, frames.missing, frames.flags, frames.interface,
                frames.time_ns, frames.count, frames.capacity, self._last_ns,
            )  # fmt: skip
            found = Found(code)
            if found not in (Found.SECTION, Found.INTERFACE):
                return found, start
            found, used = self._describe(found, memory[start:end])
            if not used:
                return found, start
            start += used

    def _describe(self, found: Found, block: NDArray[np.uint8]) -> tuple[Found, int]:
        """Read a section or interface block. Return (MORE, its length), or (the problem, 0)."""
        if found is Found.SECTION:
            if len(block) < BLOCK_BYTES:
                return Found.MORE, 0
            magic = block[ORDER_AT : ORDER_AT + 4].tobytes()
            orders = [order for order in "<>" if struct.pack(order + "I", BYTE_ORDER_MAGIC) == magic]
            if not orders:
                return Found.BYTE_ORDER, 0
            order = orders[0]
        else:
            order = self.order
        kind, length = struct.unpack(order + "II", block[:8].tobytes())
        if length < LEAST_BYTES[kind] or length % 4:
            return Found.BLOCK_LENGTH, 0
        if length > LARGEST_BLOCK_BYTES:
            return Found.ABSURD_LENGTH, 0
        if len(block) < length:
            return Found.MORE, 0
        body = block[8 : length - TRAILER_BYTES].tobytes()
        if struct.unpack(order + "I", block[length - TRAILER_BYTES : length].tobytes())[0] != length:
            return Found.BLOCK_TRAILER, 0
        wrong = self._section(body, order) if found is Found.SECTION else self._interface(body)
        return (wrong, 0) if wrong else (Found.MORE, length)

    def _section(self, body: bytes, order: str) -> Found | None:
        if struct.unpack(order + "H", body[4:6])[0] != 1:
            return Found.VERSION
        self._skipped = Counter(self.skipped)
        self.order, self._count = order, 0
        return None

    def _interface(self, body: bytes) -> Found | None:
        if self._count == MOST_INTERFACES:
            return Found.INTERFACES
        link, _, snap = struct.unpack(self.order + "HHI", body[:8])
        try:
            row = _units(self._options(body[8:]), self.order)
        except (ValueError, struct.error):
            return Found.INTERFACE_OPTIONS
        row["kind"], row["snap"], row["link"] = LINKS.get(link, UNKNOWN), snap, link
        if self._count == len(self._interfaces):
            self._interfaces = np.concatenate([self._interfaces, np.zeros_like(self._interfaces)])
        self._interfaces[self._count] = row
        if not self._described:
            self.raw = is_bare(row["kind"])
            self.nanoseconds = bool(row["binary"] or row["multiply"] < 1000)
        self._count, self._described = self._count + 1, self._described + (link in LINKS)
        return None

    def _options(self, body: bytes) -> dict[int, bytes]:
        options, at = {}, 0
        while at + 4 <= len(body):
            code, length = struct.unpack_from(self.order + "HH", body, at)
            if code == 0:
                break
            if at + 4 + length > len(body):
                raise ValueError("an option longer than its block")
            options[code] = body[at + 4 : at + 4 + length]
            at += 4 + (length + 3) // 4 * 4
        return options


def _units(options: dict[int, bytes], order: str) -> Any:
    """Return a row with an interface's time unit and offset (section 4.2, if_tsresol and if_tsoffset)."""
    row = np.zeros((), INTERFACE)
    (resolution,) = struct.unpack("B", options.get(OPTION_RESOLUTION, b"\x06"))
    (offset_s,) = struct.unpack(order + "q", options.get(OPTION_OFFSET, bytes(8)))
    exponent = resolution & 0x7F
    row["multiply"] = row["divide"] = 1
    row["offset_ns"] = (offset_s * SECOND_NS + (1 << 63)) % (1 << 64) - (1 << 63)
    if resolution & 0x80 and exponent:
        row["binary"] = exponent
    elif exponent <= 28:  # above that, 64 bits of time are less than a nanosecond
        row["multiply" if exponent <= 9 else "divide"] = 10 ** abs(9 - exponent)
    else:
        row["multiply"] = 0
    return row


@step
def _time_ns(high, low, interface):  # type: ignore[no-untyped-def]
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
def _interface_number(kind, block, swapped):  # type: ignore[no-untyped-def]
    if kind == ENHANCED_BLOCK:
        return int64(host_order(packet_at(at_address(block), 0).interface, swapped))
    if kind == OBSOLETE_BLOCK:
        short = obsolete_at(at_address(block), 0).interface
        return int64(swap16(short)) if swapped else int64(short)
    return int64(0)


@compiled
def _scan(  # type: ignore[no-untyped-def]  # noqa: C901 -- compiled: a block's checks in the order of its fields
    memory, start, end, swapped, interfaces, described, arena, address, length, missing, flags, interface, time_ns,
    count, capacity, last_ns,
):  # fmt: skip
    at = start
    while True:
        if end - at < BLOCK_BYTES:
            return MORE, at, count, last_ns
        block = memory + u64(at)
        head = packet_at(at_address(block), 0)
        kind, size = host_order(head.type, swapped), int64(host_order(head.length, swapped))
        if kind == SECTION_BLOCK:
            return ON_SECTION, at, count, last_ns
        if kind == INTERFACE_BLOCK:
            return ON_INTERFACE, at, count, last_ns
        if size < BLOCK_BYTES or size % 4 != 0:
            return BLOCK_LENGTH, at, count, last_ns
        is_packet = kind in (ENHANCED_BLOCK, OBSOLETE_BLOCK, SIMPLE_BLOCK)
        number = _interface_number(kind, block, swapped) if is_packet else int64(described)
        own = interface_at(at_address(interfaces), number if number < described else int64(0))
        is_foreign = number < described and own.kind == UNKNOWN
        is_needed = is_packet and not is_foreign
        if is_needed and size > LARGEST_BLOCK_BYTES:
            return ABSURD_LENGTH, at, count, last_ns
        if end - at < size:
            if is_needed:
                return MORE, at, count, last_ns
            if is_foreign:
                if count != 0:  # it comes again, and is counted once
                    return FULL, at, count, last_ns
                own.skipped += u64(1)
            return SKIP, at, count, last_ns
        trailer = word_at(at_address(block + u64(size - TRAILER_BYTES)), 0).value
        if int64(host_order(trailer, swapped)) != size:
            return BLOCK_TRAILER, at, count, last_ns
        if not is_needed:
            if is_foreign:
                own.skipped += u64(1)
            at += size
            continue
        if count == capacity:
            return FULL, at, count, last_ns
        before = SIMPLE_BYTES if kind == SIMPLE_BLOCK else PACKET_BYTES
        if size < before + TRAILER_BYTES:
            return BLOCK_LENGTH, at, count, last_ns
        if number >= described:
            return NO_INTERFACE, at, count, last_ns
        if kind == SIMPLE_BLOCK:  # has no time: it has that of the packet before
            original = int64(host_order(simple_at(at_address(block), 0).original, swapped))
            captured = min(original, int64(own.snap)) if own.snap != 0 else original
        else:
            captured, original = (
                int64(host_order(head.captured, swapped)),
                int64(host_order(head.original, swapped)),
            )
            last_ns = _time_ns(host_order(head.time_high, swapped), host_order(head.time_low, swapped), own)
        if captured > LARGEST_BYTES:
            return ABSURD_LENGTH, at, count, last_ns
        if before + captured + TRAILER_BYTES > size:
            return CAPTURED_LENGTH, at, count, last_ns
        if not has_room(arena, address, length, count, captured, original):
            return FULL, at, count, last_ns
        source = block + u64(before)
        put(arena, address, length, missing, flags, count, source, captured, original, own.kind)
        time_ns[count], interface[count] = last_ns, number
        at += size
        count += 1
