"""Frames that wait for a next hop's MAC address: few, for a short time, and counted."""

import time
from collections import deque
from dataclasses import dataclass

import numpy as np

from lbmux.frames.batch import HEADROOM_BYTES, Batch

LIMIT_FRAMES = 256
LIMIT_S = 1.0
STRIDE_BYTES = 65536 // 16


@dataclass
class Waiting:
    """A bounded queue; what does not fit, or waits too long, is dropped and counted."""

    def __post_init__(self) -> None:
        self._frames: deque[tuple[float, bytes, int]] = deque()
        self._arena = np.zeros((LIMIT_FRAMES, STRIDE_BYTES), np.uint8)
        self.batch = Batch(LIMIT_FRAMES)
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: bytes, flags: int) -> None:
        """Keep a copy of a frame as it arrived."""
        if len(self._frames) >= LIMIT_FRAMES or len(frame) > STRIDE_BYTES - HEADROOM_BYTES:
            self.dropped += 1
            return
        self._frames.append((time.monotonic(), frame, flags))

    def take(self) -> Batch:
        """All that wait, as a batch for another try; those that are too old are dropped."""
        oldest, batch, count = time.monotonic() - LIMIT_S, self.batch, 0
        for since, frame, flags in self._frames:
            if since < oldest:
                self.dropped += 1
                continue
            place = self._arena[count]
            place[HEADROOM_BYTES : HEADROOM_BYTES + len(frame)] = np.frombuffer(frame, np.uint8)
            batch.address[count] = place.ctypes.data + HEADROOM_BYTES
            batch.length[count], batch.flags[count] = len(frame), flags
            count += 1
        self._frames.clear()
        batch.count = count
        return batch
