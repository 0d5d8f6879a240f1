"""Frames that the kernel's programs forward or drop by themselves, as they came and as they left, for who watches.

For so long other programs stand in the place of the usual ones (lbmux.targets.bpf.watched), which write what passes a
sieve into a ring.  Both are swapped between two packets.  Where this process dies meanwhile, they forward on, and find
the ring full.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lbmux.datapath.sift import SIEVE
from lbmux.datapath.verdicts import Verdict
from lbmux.errors import SetupError
from lbmux.frames.xdp import Kernel
from lbmux.targets.bpf import syscall, watched
from lbmux.targets.bpf.ring import Ring
from lbmux.targets.bpf.syscall import Attach, Loaded

RING_BYTES = 1 << 21
"""Room for a thousand frames."""
PROGRAMS = f"{watched.__name__}:"


@dataclass(frozen=True)
class Recorded:
    """A frame as it ``came``, and as it ``left`` where it did; ``target`` is a row or -1, interfaces are indices."""

    time_ns: int
    came: bytes
    verdict: Verdict
    target: int
    came_by: int
    left: bytes | None
    left_by: int


class Recorder:
    """Of what ``programs``, which are attached, do; nothing is recorded before ``sift`` and ``allow`` are called."""

    def __init__(self, kernel: Kernel, programs: Mapping[Attach, str]) -> None:
        """Takes as long as a compilation does the first time.  BpfError where the kernel refuses it."""
        self._kernel, self._workers = kernel, kernel.tables.sizes.workers
        self._came = dict[int, tuple[int, bytes]]()
        """By worker: the number of the last frame of which we know how it came, and that."""
        self.lost = 0
        """Frames of which only the end was found, since the ring was full."""
        size = watched.SIEVE_BYTES + self._workers * watched.BUDGET.itemsize
        self._table = syscall.create_array("watch", size)
        memory = np.frombuffer(syscall.map_value(self._table, size), np.uint8)
        self._sieve = memory[: watched.SIEVE_BYTES].view(SIEVE)
        self._budget = memory[watched.SIEVE_BYTES : size].view(watched.BUDGET)
        self._ring = Ring("frames", RING_BYTES)
        self._loaded = dict[Attach, Loaded]()
        try:
            names = {place: PROGRAMS + name for place, name in programs.items()}
            self._loaded = kernel.load_beside(
                names, {"watch": self._table}, {watched.RING_SYMBOL + "frames": self._ring.fileno()}
            )
            for place, loaded in self._loaded.items():
                kernel.swap(place, loaded)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        return self._ring.fileno()

    def sift(self, sieve: Mapping[str, int]) -> None:
        """Record what passes from now on: fields of SIEVE, those that are not named ask nothing."""
        row = np.zeros(1, SIEVE)
        for name, value in sieve.items():
            row[name] = value
        self._budget["left"] = 0  # in between the sieve is neither the old one nor the new one
        self._sieve[:] = row

    def allow(self, frames: int) -> int:
        """Let each worker record so many more at most; how many have passed the sieve before and were not allowed."""
        skipped = int(self._budget["skipped"].sum())
        self._budget["skipped"] = 0
        self._budget["left"] = frames
        return skipped

    def read(self) -> Iterator[Recorded]:
        """What the ring has."""
        ahead_ns = time.time_ns() - time.monotonic_ns()
        for data in self._ring.records():
            head = np.frombuffer(data, watched.RECORD, 1)[0]
            frame = data[watched.RECORD_BYTES :][: int(head["length"])]
            worker, sequence = int(head["worker"]), int(head["sequence"])
            if not head["after"]:
                self._came[worker] = (sequence, frame)
                continue
            number, came = self._came.pop(worker, (0, b""))
            verdict, left, left_by = Verdict(int(head["verdict"])), None, 0
            if verdict.kind != "send":  # and as it is, it came
                came = frame
            elif number != sequence:
                self.lost += 1
                continue
            else:
                left, left_by = frame, int(head["leaves_by"]) or int(head["interface"])
            when_ns, came_by = int(head["time_ns"]) + ahead_ns, int(head["interface"])
            yield Recorded(when_ns, came, verdict, int(head["target"]), came_by, left, left_by)

    def close(self) -> None:
        """Put the usual programs back, unless somebody took them off meanwhile."""
        with contextlib.suppress(SetupError):
            for place in self._loaded:
                self._kernel.swap(place, self._kernel.loaded[place])
        for loaded in self._loaded.values():
            os.close(loaded.descriptor)
        self._loaded = {}
        self._ring.close()
        os.close(self._table)
