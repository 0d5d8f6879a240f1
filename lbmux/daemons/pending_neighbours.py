"""Frames that wait for a next hop's MAC address: a bounded queue with a time limit and a drop counter."""

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
    """Frames that do not fit, or wait longer than LIMIT_S, are dropped and counted."""

    def __post_init__(self) -> None:
        self._frames: deque[tuple[float, bytes, int]] = deque()
        self._arena = np.zeros((LIMIT_FRAMES, STRIDE_BYTES), np.uint8)
        self.batch = Batch(LIMIT_FRAMES)
        self.dropped = 0
        self._taken: list[tuple[float, int]] = []
        """Per frame in ``batch``: arrival (time.monotonic) and length in bytes."""

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: bytes, flags: int, since: float) -> None:
        """Keep a copy of a frame; ``since``: its arrival (time.monotonic)."""
        if len(self._frames) >= LIMIT_FRAMES or len(frame) > STRIDE_BYTES - HEADROOM_BYTES:
            self.dropped += 1
            return
        self._frames.append((since, frame, flags))

    def arrivals(self, count: int) -> list[tuple[int, int]]:
        """Arrival (ns since 1970) and length in bytes of the first ``count`` frames of the last ``take``."""
        ahead = time.time() - time.monotonic()
        return [(int((since + ahead) * 1e9), length) for since, length in self._taken[:count]]

    def take(self, now: float) -> tuple[float, Batch]:
        """Arrival of the oldest frame, and all frames as a batch; frames that are too old are dropped.

        ``now``: time.monotonic.
        """
        batch, count = self.batch, 0
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
