"""Decompression of captures (gzip or zstd) while they are read.

capture_reader.py uses it in place of the file. Memory is bounded whatever the file contains: it decompresses one small
piece at a time.
"""

import io
import zlib
from pathlib import Path
from typing import Any, Protocol

from lbmux.errors import CaptureError

GZIP, ZSTD = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"
"""The first bytes of a file (RFC 1952, section 2.3; RFC 8878, section 3.1.1)."""
PIECE_BYTES = 1024
"""Compressed bytes per step. They expand to at most 1 MB (gzip) or 32 MB (zstd: a 4-byte block may hold 128 KiB)."""
GZIP_WINDOW = 31
"""zlib's wbits for the largest window with gzip header and trailer."""


class Decompressor(Protocol):
    """The common interface of zlib and zstandard."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def compression_of(start: bytes) -> str | None:
    """Return the compression of a file that begins with ``start``, or None."""
    return "gzip" if start.startswith(GZIP) else "zstd" if start.startswith(ZSTD) else None


class Decompressed:
    """Reads like a file. For damaged data it raises CaptureError with the offset in the decompressed data."""

    def __init__(self, path: Path, file: io.FileIO, start: bytes, kind: str) -> None:
        """``start`` is what has already been read from the file."""
        self._path, self._file, self._kind = path, file, kind
        self._input, self._at = start, 0
        self.output = memoryview(b"")
        self._given = 0
        self._decompressor, self._error = _decompressor(kind)

    def readinto(self, target: memoryview) -> int:
        """Read into ``target``. Return the number of bytes; 0 at the end."""
        while not self.output:
            if self._at == len(self._input):
                self._input, self._at = self._file.read(PIECE_BYTES) or b"", 0
            if not self._input:
                self._check_end()
                return 0
            self.output = memoryview(self._decompress())
        size = min(len(target), len(self.output))
        target[:size] = self.output[:size]
        self.output = self.output[size:]
        self._given += size
        return size

    def close(self) -> None:
        self._file.close()

    def _decompress(self) -> bytes:
        """Return the decompressed next piece of the input."""
        piece = self._input[self._at : self._at + PIECE_BYTES]
        self._at += len(piece)
        if self._decompressor.eof:  # padding, or another member
            piece = piece.lstrip(b"\0")
            if not piece:
                return b""
            self._decompressor, self._error = _decompressor(self._kind)
        try:
            result = self._decompressor.decompress(piece)
        except self._error as error:
            raise CaptureError(self._path, self._given, f"the {self._kind} data is damaged: {error}") from error
        if self._decompressor.eof:
            self._at -= len(self._decompressor.unused_data)
        return result

    def _check_end(self) -> None:
        if not self._decompressor.eof:
            raise CaptureError(self._path, self._given, f"the {self._kind} data is truncated")


def _decompressor(kind: str) -> tuple[Decompressor, Any]:
    """Return a decompressor and the errors that it raises."""
    if kind == "gzip":
        return zlib.decompressobj(GZIP_WINDOW), zlib.error
    import zstandard  # rarely needed

    return zstandard.ZstdDecompressor().decompressobj(), zstandard.ZstdError
