"""The pcapng format (draft-ietf-opsawg-pcapng): a parser of its packets.

It supports sections of either byte order, any number of interfaces with their own link types and time units, and
enhanced, simple and obsolete packet blocks. It skips other blocks, and it skips and counts packets of unknown link
types. Compiled code extracts packets (pcapng_blocks); Python reads the few blocks that describe sections and
interfaces.
"""

import struct
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.codegen.compiled import address_of
from lbmux.frames.captured_frames import CapturedFrames, ScanEnd
from lbmux.frames.links import LINKS, UNKNOWN_LINK, is_bare
from lbmux.frames.pcapng_blocks import (
    BLOCK_BYTES,
    INTERFACE,
    INTERFACE_BLOCK,
    LARGEST_BLOCK_BYTES,
    SECOND_NS,
    SECTION_BLOCK,
    TRAILER_BYTES,
    scan,
)

BYTE_ORDER_MAGIC = 0x1A2B3C4D
LEAST_BYTES = {SECTION_BLOCK: 28, INTERFACE_BLOCK: 20}
ORDER_AT = 8
MOST_INTERFACES = 65536
OPTION_RESOLUTION, OPTION_OFFSET = 9, 14


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

    def scan(self, memory: NDArray[np.uint8], start: int, end: int, frames: CapturedFrames) -> tuple[ScanEnd, int]:
        """Add the packets in bytes ``start`` to ``end`` of ``memory`` to the batch. Return why and where it stopped."""
        while True:
            code, start, frames.count, self._last_ns = scan(
                address_of(memory), start, end, self.order == ">", address_of(self._interfaces), self._count,
                frames.arena, frames.address, frames.length, frames.missing, frames.flags, frames.interface,
                frames.time_ns, frames.count, frames.capacity, self._last_ns,
            )  # fmt: skip
            result = ScanEnd(code)
            if result not in (ScanEnd.SECTION, ScanEnd.INTERFACE):
                return result, start
            result, used = self._describe(result, memory[start:end])
            if not used:
                return result, start
            start += used

    def _describe(self, result: ScanEnd, block: NDArray[np.uint8]) -> tuple[ScanEnd, int]:
        """Read a section or interface block. Return (MORE, its length), or (the fault, 0)."""
        if result is ScanEnd.SECTION:
            if len(block) < BLOCK_BYTES:
                return ScanEnd.MORE, 0
            magic = block[ORDER_AT : ORDER_AT + 4].tobytes()
            orders = [order for order in "<>" if struct.pack(order + "I", BYTE_ORDER_MAGIC) == magic]
            if not orders:
                return ScanEnd.BYTE_ORDER, 0
            order = orders[0]
        else:
            order = self.order
        kind, length = struct.unpack(order + "II", block[:8].tobytes())
        if length < LEAST_BYTES[kind] or length % 4:
            return ScanEnd.BLOCK_LENGTH, 0
        if length > LARGEST_BLOCK_BYTES:
            return ScanEnd.ABSURD_LENGTH, 0
        if len(block) < length:
            return ScanEnd.MORE, 0
        body = block[8 : length - TRAILER_BYTES].tobytes()
        if struct.unpack(order + "I", block[length - TRAILER_BYTES : length].tobytes())[0] != length:
            return ScanEnd.BLOCK_TRAILER, 0
        fault = self._section(body, order) if result is ScanEnd.SECTION else self._interface(body)
        return (fault, 0) if fault else (ScanEnd.MORE, length)

    def _section(self, body: bytes, order: str) -> ScanEnd | None:
        if struct.unpack(order + "H", body[4:6])[0] != 1:
            return ScanEnd.VERSION
        self._skipped = Counter(self.skipped)
        self.order, self._count = order, 0
        return None

    def _interface(self, body: bytes) -> ScanEnd | None:
        if self._count == MOST_INTERFACES:
            return ScanEnd.INTERFACES
        link, _, snap = struct.unpack(self.order + "HHI", body[:8])
        try:
            row = _units(self._options(body[8:]), self.order)
        except (ValueError, struct.error):
            return ScanEnd.INTERFACE_OPTIONS
        row["kind"], row["snap"], row["link"] = LINKS.get(link, UNKNOWN_LINK), snap, link
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
    elif exponent <= 28:  # beyond that, a 64-bit timestamp covers less than a nanosecond
        row["multiply" if exponent <= 9 else "divide"] = 10 ** abs(9 - exponent)
    else:
        row["multiply"] = 0
    return row
