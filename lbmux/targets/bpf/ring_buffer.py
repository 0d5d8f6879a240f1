"""A ring buffer that kernel programs write records into, read from Python (linux/bpf.h, BPF_MAP_TYPE_RINGBUF).

One page holds the read position and one the write position. The data is mapped twice in a row, so that no record is
split.
"""

import mmap
import os
import struct
from collections.abc import Iterator

from lbmux.targets.bpf import syscall

HEADER_BYTES = 8
BUSY, DISCARDED = 1 << 31, 1 << 30
"""Bits of a record's length: the record is still being written; the record was discarded."""


class Ring:
    """A ring of ``size_bytes``, a power of two of pages. ``fileno`` is readable when there is a record."""

    def __init__(self, name: str, size_bytes: int) -> None:
        self._size = size_bytes
        self._descriptor = syscall.create_ring(name, size_bytes)
        self._read = mmap.mmap(self._descriptor, mmap.PAGESIZE)
        written = mmap.PAGESIZE + 2 * size_bytes
        self._written = mmap.mmap(self._descriptor, written, prot=mmap.PROT_READ, offset=mmap.PAGESIZE)

    def fileno(self) -> int:
        return self._descriptor

    def records(self) -> Iterator[bytes]:
        """Yield the records that are available now. A record's space is freed when the next one is requested."""
        (at,), (end,) = struct.unpack_from("<Q", self._read), struct.unpack_from("<Q", self._written)
        while at < end:
            place = mmap.PAGESIZE + at % self._size
            (length,) = struct.unpack_from("<I", self._written, place)
            if length & BUSY:
                return
            data = place + HEADER_BYTES
            if not length & DISCARDED:
                yield self._written[data : data + length]
            at += (HEADER_BYTES + (length & ~DISCARDED) + 7) // 8 * 8
            struct.pack_into("<Q", self._read, 0, at)

    def close(self) -> None:
        self._read.close()
        self._written.close()
        os.close(self._descriptor)
