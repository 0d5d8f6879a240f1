"""Transmit: a capture's own frames onto a wire, at the times that it has or at a rate of one's own."""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lbmux.errors import CaptureError
from lbmux.frames.captured import CapturedFrames
from lbmux.frames.transmitter import Transmitter
from lbmux.tools.looped import LoopedCapture, Progress, silent

BURST = 64
"""Frames that are handed to the kernel at once at most."""
SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Transmitted:
    """``sent`` of ``packets`` frames were taken by the interface."""

    packets: int
    sent: int
    seconds: float
    damage: CaptureError | None

    @property
    def packets_per_second(self) -> float:
        return self.packets / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, object]:
        damage = self.damage and {"offset": self.damage.offset, "reason": self.damage.reason}
        return {**vars(self), "packets_per_second": self.packets_per_second, "damage": damage}


class Schedule:
    """When each frame is due, in nanoseconds from the first one."""

    def __init__(self, pps: int | None) -> None:
        """``pps``: at this rate; None: as recorded."""
        self._pps = pps
        self._packets = 0
        self._first_ns: int | None = None
        self._latest_ns = 0

    def due_ns(self, frames: CapturedFrames) -> NDArray[np.int64]:
        """For the next batch; never falling, even where the capture's times do."""
        if self._pps is not None:
            numbers = self._packets + np.arange(frames.count, dtype=np.int64)
            self._packets += frames.count
            return numbers * SECOND_NS // self._pps
        if self._first_ns is None:
            self._first_ns = int(frames.time_ns[0])
        due = np.maximum.accumulate(frames.time_ns[: frames.count] - self._first_ns)
        due = np.maximum(due, self._latest_ns)
        self._latest_ns = int(due[-1])
        return due


def transmit(
    capture: LoopedCapture, transmitter: Transmitter, pps: int | None = None, progress: Progress = silent
) -> Transmitted:
    """Send a capture's frames; of a damaged one those before the damage."""
    packets, sent, damage, schedule = 0, 0, None, Schedule(pps)
    transmitter.send(CapturedFrames(1), 0, 0)  # compiled before the time is taken
    begun_ns = time.perf_counter_ns()
    try:
        for frames in capture.batches(progress):
            due_ns, start = schedule.due_ns(frames), 0
            while start < frames.count:
                now_ns = time.perf_counter_ns() - begun_ns
                end = min(int(np.searchsorted(due_ns, now_ns, "right")), start + BURST)
                if end > start:
                    sent += transmitter.send(frames, start, end)
                    packets += end - start
                    start = end
                else:
                    time.sleep((int(due_ns[start]) - now_ns) / SECOND_NS)
    except CaptureError as error:
        damage = error
    return Transmitted(packets, sent, (time.perf_counter_ns() - begun_ns) / SECOND_NS, damage)
