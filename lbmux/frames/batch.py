"""A batch of frames: what drivers fill and empty, and the data path works on.

Parallel arrays, one entry a frame; the frames themselves stay where the driver has them.
"""

import numpy as np

HEADROOM_BYTES = 64
"""Writable bytes before each frame: what the data path may grow it by."""
CAPACITY = 256


class Batch:
    """Up to ``capacity`` frames, of which the first ``count`` are there."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.count = 0
        self.address = np.zeros(capacity, np.uint64)
        """Where in memory the frame's Ethernet header begins."""
        self.length = np.zeros(capacity, np.uint32)
        """Bytes of the frame."""
        self.verdict = np.zeros(capacity, np.uint8)
        """What became of it (datapath.verdicts)."""
        self.flags = np.zeros(capacity, np.uint8)
        """UNFINISHED_CHECKSUM, CUT (datapath.world)."""
        self.interface = np.zeros(capacity, np.uint32)
        """Index of the interface it came in by; when it is to be sent, of the one it leaves by (0: the same)."""
        self.target = np.full(capacity, -1, np.int32)
        """The row of the backend (mux) or the endpoint (agent) that it has, or -1."""
