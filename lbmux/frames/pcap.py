"""The pcap format (draft-ietf-opsawg-pcap): a parser of records and a writer.

It supports both byte orders, microseconds and nanoseconds, and the "modified" format with longer records.
capture_reader.py reads files and passes bytes to `Pcap.scan`, which fills a batch in compiled code. `PcapWriter` writes
a batch's frames to a file.
"""

import io
import struct
import sys
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lbmux.codegen.compiled import address_of, compiled
from lbmux.datapath.memory import at_address, int64, layout, rows, u32, u64
from lbmux.errors import CaptureError, SetupError
from lbmux.frames.captured_frames import (
    LARGEST_BYTES,
    CapturedFrames,
    ScanEnd,
    fits_arena,
    host_order,
    memcpy,
    put,
)
from lbmux.frames.links import KNOWN_LINKS, LINK_ETHERNET, LINK_RAW, LINKS, is_bare
from lbmux.wire.header_layouts import ETHERNET_BYTES

MICROSECONDS, NANOSECONDS, MODIFIED = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34
"""The file's first four bytes, which give its byte order and its unit of time."""
MAGICS = (MICROSECONDS, NANOSECONDS, MODIFIED)
MODIFIED_BYTES = 8
"""Kuznetsov's libpcap for Linux put interface, protocol and packet type after each record's header."""
FILE_HEADER = "IHHiIII"
FILE_HEADER_BYTES = 24
LINK_TYPE_AT, VERSION_AT = 20, 4
VERSION = (2, 4)
RECORD = layout(("seconds", "u4"), ("fraction", "u4"), ("captured", "u4"), ("original", "u4"))
RECORD_BYTES = RECORD.itemsize
record_at = rows(RECORD)

MORE, FULL, ABSURD_LENGTH = int(ScanEnd.MORE), int(ScanEnd.FULL), int(ScanEnd.ABSURD_LENGTH)
SECOND_NS = 1_000_000_000
OUTPUT_BYTES = 1 << 20


def is_pcap(start: bytes) -> bool:
    return any(struct.unpack(order + "I", start[:4])[0] in MAGICS for order in "<>")


class Pcap:
    """One file's format, from its header."""

    def __init__(self, path: Path, header: bytes) -> None:
        """Raise CaptureError for a truncated header, or for an unknown version or link type."""
        if len(header) < FILE_HEADER_BYTES:
            raise CaptureError(path, len(header), "truncated in the file's header")
        order = "<" if struct.unpack("<I", header[:4])[0] in MAGICS else ">"
        magic, major, minor, _, _, _, link = struct.unpack(order + FILE_HEADER, header)
        if major != VERSION[0]:
            raise CaptureError(path, VERSION_AT, f"unknown format version {major}.{minor}")
        if (link & 0xFFFF) not in LINKS:
            raise CaptureError(path, LINK_TYPE_AT, f"link type {link & 0xFFFF} is not {KNOWN_LINKS}")
        self._kind = LINKS[link & 0xFFFF]
        self.order = order
        """The byte order, in struct's notation."""
        self._record_bytes = RECORD_BYTES + (MODIFIED_BYTES if magic == MODIFIED else 0)
        self.raw = is_bare(self._kind)
        """Whether the frames are IP packets without an Ethernet header."""
        self.skipped: dict[int, int] = {}
        """Skipped packets by link type: always empty, since a file has one link type."""
        self.nanoseconds = magic == NANOSECONDS
        """Whether times are finer than microseconds."""

    def scan(self, memory: NDArray[np.uint8], start: int, end: int, frames: CapturedFrames) -> tuple[ScanEnd, int]:
        """Add the records in bytes ``start`` to ``end`` of ``memory`` to the batch. Return why and where it stopped."""
        result, at, frames.count = _scan(
            address_of(memory), start, end, self.order == ">", 1 if self.nanoseconds else 1000, self._kind,
            self._record_bytes, frames.arena, frames.address, frames.length, frames.missing, frames.flags,
            frames.interface, frames.time_ns, frames.count, frames.capacity,
        )  # fmt: skip
        return ScanEnd(result), at


@compiled
def _scan(  # type: ignore[no-untyped-def]
    memory, start, end, swapped, unit_ns, kind, record_bytes, arena, address, length, missing, flags, interface,
    time_ns, count, capacity,
):  # fmt: skip
    at = start
    while count < capacity:
        if end - at < record_bytes:
            return MORE, at, count
        record = record_at(at_address(memory + u64(at)), 0)
        captured, original = host_order(record.captured, swapped), host_order(record.original, swapped)
        if captured > LARGEST_BYTES:
            return ABSURD_LENGTH, at, count
        if end - at < record_bytes + captured:
            return MORE, at, count
        if not fits_arena(arena, address, length, count, captured, original):
            break
        source = memory + u64(at + record_bytes)
        put(arena, address, length, missing, flags, count, source, captured, original, kind)
        seconds, fraction = int64(host_order(record.seconds, swapped)), int64(host_order(record.fraction, swapped))
        time_ns[count], interface[count] = seconds * SECOND_NS + fraction * unit_ns, 0
        at += record_bytes + captured
        count += 1
    return FULL, at, count


class PcapWriter:
    """Writes frames to a pcap file in the machine's byte order; ``-`` is standard output. May raise SetupError."""

    def __init__(self, path: Path, raw: bool = False, nanoseconds: bool = False) -> None:
        """``raw``: without Ethernet headers."""
        self.path = path
        self.frames = 0
        self._cut = ETHERNET_BYTES if raw else 0
        self._unit_ns = 1 if nanoseconds else 1000
        self._output = np.empty(OUTPUT_BYTES, np.uint8)
        self._memory = address_of(self._output)
        magic, link = NANOSECONDS if nanoseconds else MICROSECONDS, LINK_RAW if raw else LINK_ETHERNET
        header = struct.pack("=" + FILE_HEADER, magic, *VERSION, 0, 0, LARGEST_BYTES, link)
        self._output[: len(header)] = np.frombuffer(header, np.uint8)
        self._used = len(header)
        try:
            self._file = io.FileIO(sys.stdout.fileno() if str(path) == "-" else path, "wb", str(path) != "-")
        except OSError as error:
            raise SetupError(str(path), error.strerror or str(error), "name another file to write") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, frames: CapturedFrames, below: int) -> None:
        """Write the frames whose verdict is below ``below``, with their own times."""
        at = 0
        while True:
            at, self._used, written = _assemble(
                self._memory, self._used, self._unit_ns, self._cut, frames.address, frames.length, frames.missing,
                frames.verdict, frames.time_ns, at, frames.count, below,
            )  # fmt: skip
            self.frames += written
            if at == frames.count:
                return
            self.flush()

    def flush(self) -> None:
        """Write the assembled records to the file."""
        rest = self._output.data[: self._used]
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise SetupError(str(self.path), error.strerror or str(error), "is the disk full? see `df`") from error
        self._used = 0

    def close(self) -> None:
        try:
            self.flush()
        finally:
            self._file.close()


@compiled
def _assemble(  # type: ignore[no-untyped-def]
    memory, used, unit_ns, cut, address, length, missing, verdict, time_ns, first, count, below
):
    written = 0
    for index in range(first, count):
        if verdict[index] >= below or length[index] < cut:
            continue
        original = int64(length[index]) - cut
        captured = original - int64(missing[index])
        if used + RECORD_BYTES + captured > OUTPUT_BYTES:
            return index, used, written
        record = record_at(at_address(memory + u64(used)), 0)
        record.seconds = u32(time_ns[index] // SECOND_NS)
        record.fraction = u32(time_ns[index] % SECOND_NS // unit_ns)
        record.captured, record.original = u32(captured), u32(original)
        source = at_address(address[index] + u64(cut))
        memcpy(at_address(memory + u64(used + RECORD_BYTES)), source, u64(captured))
        used += RECORD_BYTES + captured
        written += 1
    return count, used, written
