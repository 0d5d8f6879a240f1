"""The copy of a frame that trace clients see: a frame at one point of its path, at one time.

Copies are made of a ring's frames, of a kernel program's records, and of the packets that the slow path sends.
"""

import ctypes
from typing import NamedTuple

from lbmux.frames.batch import Batch


class FrameCopy(NamedTuple):
    """A copied frame of ``length`` bytes; ``data`` may be shorter. ``time_ns`` is nanoseconds since 1970."""

    data: bytes
    length: int
    interface: int
    """The interface's index; 0 is the daemon's own."""
    time_ns: int

    @classmethod
    def from_batch(cls, batch: Batch, index: int, time_ns: int, interface: int) -> "FrameCopy":
        """Copy the frame at ``index``; ``interface`` is the one by which it came or leaves."""
        data = ctypes.string_at(int(batch.address[index]), int(batch.length[index]))
        return cls(data, len(data), interface, time_ns)
