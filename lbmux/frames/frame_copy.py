"""A frame as it was at one place at one time: the copy that trace clients see.

Beside the packet's way; made of a ring's frames, of a kernel program's records, and of what the slow path sends.
"""

from typing import NamedTuple


class FrameCopy(NamedTuple):
    """``data`` may end before the frame does, which had ``length`` bytes; ``time_ns`` is since 1970."""

    data: bytes
    length: int
    interface: int
    """Its index; 0 where nobody says: the daemon's own."""
    time_ns: int
