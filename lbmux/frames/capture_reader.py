"""A streaming reader of capture files: pcap or pcapng, plain or compressed, from a file or standard input.

This is the first step of a replay. Memory is bounded: the file is read in pieces, and compiled code fills a batch of
frames from them.
"""

import io
import os
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np

from lbmux.errors import CaptureError, SetupError
from lbmux.frames.captured_frames import REASONS, CapturedFrames, ScanEnd
from lbmux.frames.compressed import Decompressed, compression_of
from lbmux.frames.pcap import FILE_HEADER_BYTES, Pcap, is_pcap
from lbmux.frames.pcapng import Pcapng, is_pcapng
from lbmux.frames.pcapng_blocks import LARGEST_BLOCK_BYTES

CHUNK_BYTES = 1 << 19
"""Bytes per read: small enough to stay in the CPU's cache until they are parsed."""


class CaptureReader:
    """Reads one capture; ``-`` is standard input.

    Raise SetupError if the file cannot be opened and CaptureError if it is not a capture. `read` raises CaptureError
    for damage, after it has returned every frame before it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            file = io.FileIO(sys.stdin.fileno() if str(path) == "-" else path, "rb", str(path) != "-")
        except OSError as error:
            hint = "name an existing file that this user may read"
            raise SetupError(str(path), error.strerror or str(error), hint) from error
        self.file: io.FileIO | Decompressed = file
        status = os.fstat(file.fileno())
        self.size_bytes = status.st_size if stat.S_ISREG(status.st_mode) else None
        """None if the size is unknown: for a pipe, and for the contents of a compressed file."""
        self._buffer = np.empty(LARGEST_BLOCK_BYTES + CHUNK_BYTES, np.uint8)
        self._start = self._end = 0  # the unparsed part of the buffer
        self._offset = 0  # the file offset of the buffer's first byte
        try:
            self._decompress(file)
            self._format = self._find_format()
            self._find_interface()
        except BaseException:
            self.file.close()
            raise

    def _beginning(self) -> bytes:
        while self._end < FILE_HEADER_BYTES and self._fill():
            pass
        return self._buffer[: min(self._end, FILE_HEADER_BYTES)].tobytes()

    def _decompress(self, file: io.FileIO) -> None:
        """If the file is compressed, insert a decompressor between the file and the buffer."""
        kind = compression_of(self._beginning())
        if kind:
            self.file = Decompressed(self.path, file, self._buffer[: self._end].tobytes(), kind)
            self.size_bytes, self._end = None, 0

    def _find_format(self) -> Pcap | Pcapng:
        start = self._beginning()
        if not start:
            raise CaptureError(self.path, 0, "the file is empty")
        if len(start) >= 4 and is_pcap(start):
            self._start = FILE_HEADER_BYTES
            return Pcap(self.path, start)
        if not is_pcapng(start):
            raise CaptureError(self.path, 0, "neither pcap nor pcapng, plain or compressed by gzip or zstd")
        return Pcapng()

    def _find_interface(self) -> None:
        """Scan as far as the first packet."""
        no_frames = CapturedFrames(0)
        while True:
            result, self._start = self._format.scan(self._buffer, self._start, self._end, no_frames)
            if result is ScanEnd.SKIP:
                self._skip()
            elif result is not ScanEnd.MORE or not self._fill():
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()

    @property
    def raw(self) -> bool:
        """Whether the frames (of the first interface) are IP packets without an Ethernet header."""
        return self._format.raw

    @property
    def nanoseconds(self) -> bool:
        """Whether times (of the first interface) are finer than microseconds."""
        return self._format.nanoseconds

    @property
    def skipped(self) -> dict[int, int]:
        """The number of packets that were skipped, by their unknown link types."""
        return self._format.skipped

    @property
    def offset(self) -> int:
        """How many bytes of the file (decompressed) have been parsed."""
        return self._offset + self._start

    def read(self, frames: CapturedFrames) -> int:
        """Fill the batch with the next frames. Return how many; 0 at the capture's end."""
        frames.count = 0
        while True:
            result, self._start = self._format.scan(self._buffer, self._start, self._end, frames)
            if frames.count or result is ScanEnd.FULL:
                return frames.count
            if result >= ScanEnd.DAMAGE:
                raise CaptureError(self.path, self.offset, REASONS[result])
            if result is ScanEnd.SKIP:
                self._skip()
            elif not self._fill():
                if self._start == self._end:
                    return 0
                raise CaptureError(self.path, self.offset, "truncated")

    def batches(self, frames: CapturedFrames) -> Iterator[CapturedFrames]:
        """Yield the batch, refilled each time, until the capture's end."""
        while self.read(frames):
            yield frames

    def _fill(self) -> int:
        """Read more bytes after the unparsed ones. Return how many; 0 at the file's end."""
        unparsed = self._end - self._start
        self._buffer[:unparsed] = self._buffer[self._start : self._end]
        self._offset, self._start, self._end = self._offset + self._start, 0, unparsed
        try:
            count = self.file.readinto(self._buffer.data[unparsed : unparsed + CHUNK_BYTES]) or 0
        except OSError as error:
            raise SetupError(str(self.path), error.strerror or str(error), "name a file, not a directory") from error
        self._end += count
        return count

    def _skip(self) -> None:
        """Skip a block that may be larger than the buffer."""
        block = self.offset
        length = self._buffer[self._start + 4 : self._start + 8].tobytes()
        (bytes_left,) = struct.unpack(self._format.order + "I", length)
        while bytes_left > self._end - self._start:
            bytes_left -= self._end - self._start
            self._start = self._end
            if not self._fill():
                raise CaptureError(self.path, block, "truncated")
        self._start += bytes_left
