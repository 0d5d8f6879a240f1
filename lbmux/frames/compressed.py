"""A capture that is compressed by gzip or zstd, decompressed while it is read.

Between capture.py and the file: it stands in for the file, and gives the bytes that are inside.  Memory is bounded,
whatever a file claims: a small piece is decompressed at a time.
"""

import io
import zlib
from pathlib import Path
from typing import Any, Protocol

from lbmux.errors import CaptureError

GZIP, ZSTD = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"
"""How a file begins (RFC 1952, section 2.3; RFC 8878, section 3.1.1)."""
PIECE_BYTES = 1024
"""Of compressed data at a time: at most 1 MB by gzip, and 32 MB by zstd, whose blocks of 4 bytes may hold 128 KiB."""
GZIP_WINDOW = 31
"""zlib's name for its largest window, with gzip's header and trailer."""


class Decompressor(Protocol):
    """What zlib and zstandard have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def compression_of(start: bytes) -> str | None:
    """What a file is compressed by, if it is."""
    return "gzip" if start.startswith(GZIP) else "zstd" if start.startswith(ZSTD) else None


class Decompressed:
    """Reads as a file does; CaptureError, with the offset in what is decompressed, where the data is damaged."""

    def __init__(self, path: Path, file: io.FileIO, start: bytes, kind: str) -> None:
        """``start`` was read from the file already."""
        self._path, self._file, self._kind = path, file, kind
        self._input, self._at = start, 0
        self.output = memoryview(b"")
        self._given = 0
        self._decompressor, self._error = _decompressor(kind)

    def readinto(self, target: memoryview) -> int:
        """How many bytes came; 0 at the end."""
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
        """What the next piece of the input holds."""
        piece = self._input[self._at : self._at + PIECE_BYTES]
        self._at += len(piece)
        if self._decompressor.eof:  # padding, or one more member
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
            raise CaptureError(self._path, self._given, f"the {self._kind} data is cut short")


def _decompressor(kind: str) -> tuple[Decompressor, Any]:
    """A decompressor, and the errors that it raises."""
    if kind == "gzip":
        return zlib.decompressobj(GZIP_WINDOW), zlib.error
    import zstandard  # seldom needed

    return zstandard.ZstdDecompressor().decompressobj(), zstandard.ZstdError
