"""The copy of a frame that trace clients see: a frame at one point of its path, at one time.

Copies are made of a ring's frames, of a kernel program's records, and of the packets that the slow path sends.
"""

from typing import NamedTuple


class FrameCopy(NamedTuple):
    """A copied frame of ``length`` bytes; ``data`` may be shorter. ``time_ns`` is nanoseconds since 1970."""

    data: bytes
    length: int
    interface: int
    """The interface's index; 0 is the daemon's own."""
    time_ns: int
