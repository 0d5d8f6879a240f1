"""A capture read several times over, as one: what replay and transmit work on."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from lbmux.frames.capture import CaptureReader
from lbmux.frames.captured import CapturedFrames

Progress = Callable[[int], None]
"""Told how many bytes were read, of all loops together."""
BETWEEN_LOOPS_NS = 1000


def silent(done: int) -> None:
    """No progress."""


class LoopedCapture:
    """Opens a capture at once, so that what is none is known before anything else is set up."""

    def __init__(self, path: Path, loops: int = 1) -> None:
        self.path = path
        self._loops = loops
        self._reader = CaptureReader(path)
        self.raw, self.nanoseconds = self._reader.raw, self._reader.nanoseconds
        size = self._reader.size_bytes
        self.size_bytes = None if size is None else size * loops

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.close()

    def batches(self, progress: Progress = silent) -> Iterator[CapturedFrames]:
        """The batch, filled anew; from the second time on, times go on where the last time ended."""
        frames, shift_ns, done = CapturedFrames(), 0, 0
        for number in range(self._loops):
            if number:
                self._reader.close()
                self._reader = CaptureReader(self.path)
            first_ns: int | None = None
            for batch in self._reader.batches(frames):
                first_ns = int(batch.time_ns[0]) if first_ns is None else first_ns
                last_ns = int(batch.time_ns[batch.count - 1])
                batch.time_ns[: batch.count] += shift_ns
                yield batch
                progress(done + self._reader.offset)
            if first_ns is None:
                return
            done += self._reader.offset
            shift_ns += max(last_ns - first_ns, 0) + BETWEEN_LOOPS_NS
