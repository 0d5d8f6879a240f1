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
class PendingNeighbours:
    """A bounded queue; what does not fit, or waits too long, is dropped and counted."""

    def __post_init__(self) -> None:
        self._frames: deque[tuple[float, bytes, int]] = deque()
        self._arena = np.zeros((LIMIT_FRAMES, STRIDE_BYTES), np.uint8)
        self.batch = Batch(LIMIT_FRAMES)
        self.dropped = 0
        self._taken: list[tuple[float, int]] = []
        """Since when each frame in ``batch`` waits, and its bytes."""

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: bytes, flags: int, since: float) -> None:
        """Keep a copy of a frame as it arrived; ``since`` (time.monotonic) it waits."""
        if len(self._frames) >= LIMIT_FRAMES or len(frame) > STRIDE_BYTES - HEADROOM_BYTES:
            self.dropped += 1
            return
        self._frames.append((since, frame, flags))

    def arrivals(self, count: int) -> list[tuple[int, int]]:
        """Of the first frames that the last ``take`` gave: when each came (ns since 1970), and its bytes."""
        ahead = time.time() - time.monotonic()
        return [(int((since + ahead) * 1e9), length) for since, length in self._taken[:count]]

    def take(self) -> tuple[float, Batch]:
        """All that wait, as a batch for another try, and since when the first does; the too old are dropped."""
        now, batch, count = time.monotonic(), self.batch, 0
        first = now
        self._taken = []
        for since, frame, flags in self._frames:
            if since < now - LIMIT_S:
                self.dropped += 1
                continue
            first = min(first, since)
            place = self._arena[count]
            place[HEADROOM_BYTES : HEADROOM_BYTES + len(frame)] = np.frombuffer(frame, np.uint8)
            batch.address[count] = place.ctypes.data + HEADROOM_BYTES
            batch.length[count], batch.flags[count], batch.interface[count] = len(frame), flags, 0
            self._taken.append((since, len(frame)))
            count += 1
        self._frames.clear()
        batch.count = count
        return first, batch
