"""A batch of frames from a capture file: an arena that holds them, with their times.

The two formats (pcap.py, pcapng.py) fill it and the writer drains it. Frames of other link types get an Ethernet
header (links.py), so that the data path sees one format. A frame that the capture truncated (snap length) after its
headers is padded with zeros to its original length, so that it is forwarded as it was on the wire.
"""

from copy import copy
from enum import IntEnum
from typing import Self

import numpy as np
from numba import types
from numpy.typing import NDArray

from lbmux.codegen.compiled import address_of
from lbmux.datapath.frame import CUT
from lbmux.datapath.headers import ethernet
from lbmux.datapath.memory import Pointer, at_address, int64, step, swap32, u8, u16, u32, u64
from lbmux.frames.batch import HEADROOM_BYTES, Batch
from lbmux.frames.links import ETHERNET, link_header
from lbmux.wire.header_layouts import ETHERNET_BYTES, IPV4_BYTES, TCP_BYTES

CAPACITY = 1024
ARENA_BYTES = 1 << 20
LARGEST_BYTES = 1 << 18
"""The largest frame in a capture. A larger length means that the file is damaged."""
HEADERS_BYTES = ETHERNET_BYTES + IPV4_BYTES + TCP_BYTES
"""The headers that the data path reads. If they were captured, the rest may be zeros."""
ALIGNMENT_BYTES = 16

memcpy = types.ExternalFunction("memcpy", Pointer(Pointer, Pointer, types.uint64))
memset = types.ExternalFunction("memset", Pointer(Pointer, types.int32, types.uint64))


class ScanEnd(IntEnum):
    """Why a format's scan stopped. After DAMAGE and later values nothing more can be read."""

    MORE = 0  # the next record is incomplete in the buffer
    FULL = 1  # the batch is full
    SKIP = 2  # a block to skip is incomplete in the buffer
    SECTION = 3  # pcapng: a new section
    INTERFACE = 4  # pcapng: the description of an interface
    DAMAGE = 16
    ABSURD_LENGTH = 16
    BLOCK_LENGTH = 17
    BLOCK_TRAILER = 18
    CAPTURED_LENGTH = 19
    NO_INTERFACE = 20
    BYTE_ORDER = 21
    VERSION = 22
    INTERFACE_OPTIONS = 23
    INTERFACES = 24


REASONS = {
    ScanEnd.ABSURD_LENGTH: "a packet length above the maximum",
    ScanEnd.BLOCK_LENGTH: "an invalid block length",
    ScanEnd.BLOCK_TRAILER: "a block whose two lengths differ",
    ScanEnd.CAPTURED_LENGTH: "a packet longer than its block",
    ScanEnd.NO_INTERFACE: "a packet of an interface that is not described",
    ScanEnd.BYTE_ORDER: "a section without a byte order",
    ScanEnd.VERSION: "a section of an unknown version",
    ScanEnd.INTERFACE_OPTIONS: "an interface with invalid options",
    ScanEnd.INTERFACES: "more interfaces than 65536",
}


COLUMNS = ("address", "length", "verdict", "flags", "interface", "target", "time_ns", "missing")
"""The arrays of a batch."""


class CapturedFrames(Batch):
    """A batch that owns the frames' memory, with their times and the number of padded bytes."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        super().__init__(capacity)
        self.time_ns = np.zeros(capacity, np.int64)
        """The capture's time, in nanoseconds since 1970."""
        self.missing = np.zeros(capacity, np.uint32)
        """Bytes at the frame's end that the capture lacks. They are zeros."""
        self._arena = np.empty(ARENA_BYTES, np.uint8)
        self.arena = address_of(self._arena)
        """The address of the frames' memory."""

    def part(self, first: int, end: int) -> Self:
        """Return the frames ``first`` to ``end`` as a batch on the same memory."""
        return self._selected(slice(first, end), end - first)

    def pick(self, which: NDArray[np.int64]) -> Self:
        """Return these frames as a batch with arrays of its own."""
        return self._selected(which, len(which))

    def put_back(self, which: NDArray[np.int64], batch: Self) -> None:
        """Take over what the data path wrote to a batch that ``pick`` returned."""
        for name in COLUMNS:
            getattr(self, name)[which] = getattr(batch, name)

    def _selected(self, which: "slice | NDArray[np.int64]", count: int) -> Self:
        part = copy(self)
        for name in COLUMNS:
            setattr(part, name, getattr(self, name)[which])
        part.capacity = part.count = count
        return part


@step
def host_order(value, swapped):  # type: ignore[no-untyped-def]
    """Return a 32-bit field in the machine's byte order."""
    return swap32(value) if swapped else value


@step
def _start(arena, address, length, index):  # type: ignore[no-untyped-def]
    """Return the address of frame ``index``: after the previous one, with headroom."""
    end = arena if index == 0 else address[index - 1] + u64(length[index - 1])
    return ((end + u64(ALIGNMENT_BYTES - 1)) & ~u64(ALIGNMENT_BYTES - 1)) + u64(HEADROOM_BYTES)


@step
def fits_arena(arena, address, length, index, captured, original):  # type: ignore[no-untyped-def]
    """Return whether the arena can hold one more frame. The first always fits."""
    most = min(max(int64(captured), int64(original)), LARGEST_BYTES) + ETHERNET_BYTES
    return _start(arena, address, length, index) + u64(most) <= arena + u64(ARENA_BYTES)


@step
def put(arena, address, length, missing, flags, index, source, captured, original, kind):  # type: ignore[no-untyped-def]
    """Copy a frame of ``captured`` bytes at the address ``source`` into the arena, as entry ``index``."""
    start = _start(arena, address, length, index)
    size = int64(captured)
    if kind == ETHERNET:
        memcpy(at_address(start), at_address(source), u64(captured))
    else:
        before, ethernet_type = link_header(source, captured, kind)
        size += ETHERNET_BYTES - before
        memcpy(at_address(start + u64(ETHERNET_BYTES)), at_address(source + u64(before)), u64(captured - before))
        header = ethernet(at_address(start), 0)
        header.destination_low, header.destination_high = u32(0), u16(0)
        header.source_high, header.source_low = u16(0), u32(0)
        header.type = u16(ethernet_type)
    gap = int64(original) - int64(captured)
    address[index], flags[index], missing[index] = start, u8(0), u32(0)
    if gap > 0:
        flags[index] = CUT
        if size >= HEADERS_BYTES and int64(original) <= LARGEST_BYTES:
            memset(at_address(start + u64(size)), 0, u64(gap))
            size, missing[index] = size + gap, gap
    length[index] = size
