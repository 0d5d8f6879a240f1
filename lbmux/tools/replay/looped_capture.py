"""A capture that is read once or several times, used by replay.py and transmit.py."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from lbmux.frames.capture_reader import CaptureReader
from lbmux.frames.captured_frames import CapturedFrames
from lbmux.tools.replay.destination_map import DestinationMap


class LoopedCapture:
    """A capture's frames, ``loop`` times.  Each round's times continue where the previous round ended."""

    def __init__(self, path: Path, loop: int = 1, destinations: DestinationMap | None = None) -> None:
        """``destinations`` replaces destinations of packets.  CaptureError and SetupError as for CaptureReader."""
        self.path, self.loop, self._destinations = path, loop, destinations
        self.frames = CapturedFrames()
        self.packets = self.bytes = 0
        self._reader = CaptureReader(path)
        self.raw, self.nanoseconds = self._reader.raw, self._reader.nanoseconds
        self._round = self._latest_ns = 0
        self._skipped: Counter[int] = Counter()  # in earlier rounds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.close()

    @property
    def size_bytes(self) -> int | None:
        """Bytes of all rounds; None if the size is unknown."""
        return None if self._reader.size_bytes is None else self._reader.size_bytes * self.loop

    @property
    def offset(self) -> int:
        """Bytes parsed so far, in all rounds."""
        return (self._reader.size_bytes or 0) * self._round + self._reader.offset

    @property
    def skipped(self) -> dict[int, int]:
        """Packets of unknown link types, by link type, in all rounds."""
        return dict(self._skipped + Counter(self._reader.skipped))

    @property
    def mapped(self) -> int | None:
        """Packets whose destination was replaced; None without a map."""
        return None if self._destinations is None else self._destinations.packets

    def batches(self) -> Iterator[CapturedFrames]:
        """Yield the same batch, refilled, until the last round ends.  CaptureError as for CaptureReader.read."""
        for number in range(self.loop):
            if number:
                self._skipped = Counter(self.skipped)
                self._reader.close()
                self._reader = CaptureReader(self.path)
            self._round, latest_ns, shift_ns = number, self._latest_ns, None
            for frames in self._reader.batches(self.frames):
                times = frames.time_ns[: frames.count]
                if shift_ns is None:
                    shift_ns = latest_ns - int(times[0]) if number else 0
                times += shift_ns
                self._latest_ns = int(times[-1])
                self.packets += frames.count
                self.bytes += int(frames.length[: frames.count].sum())
                if self._destinations is not None:
                    self._destinations.apply(frames)
                yield frames
