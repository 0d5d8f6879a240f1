"""A batch of frames: drivers fill and drain it, the data path processes it.

It consists of parallel arrays with one entry per frame. The frames themselves stay in the driver's memory.
"""

import numpy as np

HEADROOM_BYTES = 64
"""Writable bytes before each frame, into which the data path may grow it."""
CAPACITY = 256


class Batch:
    """Up to ``capacity`` frames, of which the first ``count`` are valid."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.count = 0
        self.address = np.zeros(capacity, np.uint64)
        """The address of the frame's Ethernet header."""
        self.length = np.zeros(capacity, np.uint32)
        """The frame's length in bytes."""
        self.verdict = np.zeros(capacity, np.uint8)
        """The frame's verdict (datapath.verdicts)."""
        self.flags = np.zeros(capacity, np.uint8)
        """UNFINISHED_CHECKSUM, CUT and KNOWN_LOCAL (datapath.frame)."""
        self.interface = np.zeros(capacity, np.uint32)
        """The index of the interface that received the frame; to send it, of the outgoing one (0: the same)."""
        self.target = np.full(capacity, -1, np.int32)
        """The row of the frame's backend (mux) or endpoint (agent), or -1."""
