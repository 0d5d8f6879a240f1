"""Records the frames that the kernel programs forward or drop themselves, before and after, for trace clients.

While a client is connected, recording programs (lbmux.targets.bpf.tapped_programs) replace the usual ones and write
frames that match a prefilter into a ring. The replacement is atomic in both directions. If this process dies meanwhile,
they keep forwarding and find the ring full.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from lbmux.datapath.prefilter import PREFILTER
from lbmux.datapath.verdicts import Verdict
from lbmux.errors import SetupError
from lbmux.frames.frame_copy import FrameCopy
from lbmux.frames.xdp import Kernel
from lbmux.targets.bpf import syscall, tapped_programs
from lbmux.targets.bpf.ring_buffer import Ring
from lbmux.targets.bpf.syscall import Attach, Loaded
from lbmux.targets.regions import OFFSET_NS

RING_BYTES = 1 << 21
"""The size of the ring, for about a thousand frames."""
PROGRAMS = f"{tapped_programs.__name__}:"


@dataclass(frozen=True)
class TapRecord:
    """A frame as it arrived (``came``) and, if it was sent, as it ``left``; ``target`` is a row or -1."""

    came: FrameCopy
    verdict: Verdict
    target: int
    left: FrameCopy | None


@dataclass
class Pairs:
    """Joins the ring's two records of a frame: its arrival and its outcome."""

    came: dict[int, tuple[int, FrameCopy]] = field(default_factory=dict)
    """The last arrival by worker: its sequence number and the frame."""
    lost: int = 0
    """Frames whose arrival record was lost because the ring was full."""

    def add(self, data: bytes, ahead_ns: int) -> TapRecord | None:
        """Add a record. Return the frame if it is complete. Adding ``ahead_ns`` to CLOCK_MONOTONIC gives Unix time."""
        head = np.frombuffer(data, tapped_programs.RECORD, 1)[0]
        length, interface = int(head["length"]), int(head["interface"])
        worker, sequence = int(head["worker"]), int(head["sequence"])
        now = FrameCopy(
            data[tapped_programs.RECORD_BYTES :][:length], length, interface, int(head["time_ns"]) + ahead_ns
        )
        if not head["after"]:
            self.came[worker] = sequence, now
            return None
        number, before = self.came.pop(worker, (0, now))
        verdict, target = Verdict(int(head["verdict"])), int(head["target"])
        if verdict.kind != "send":  # the frame is unchanged; its arrival record has the better time
            return TapRecord(before if number == sequence else now, verdict, target, None)
        if number != sequence:
            self.lost += 1
            return None
        left = now._replace(interface=int(head["leaves_by"]) or interface)
        return TapRecord(before, verdict, target, left)


class TapReader:
    """Records what the attached ``programs`` do, once ``set_prefilter`` and ``allow`` have been called."""

    def __init__(self, kernel: Kernel, programs: Mapping[Attach, str]) -> None:
        """Load and attach the recording programs, which compiles them the first time. Raise BpfError on refusal."""
        self._kernel, self._workers = kernel, kernel.tables.sizes.workers
        self._pairs = Pairs()
        size = tapped_programs.PREFILTER_BYTES + self._workers * tapped_programs.BUDGET.itemsize
        self._table = syscall.create_array("trace", size)
        memory = np.frombuffer(syscall.map_value(self._table, size), np.uint8)
        self._prefilter = memory[: tapped_programs.PREFILTER_BYTES].view(PREFILTER)
        self._budget = memory[tapped_programs.PREFILTER_BYTES : size].view(tapped_programs.BUDGET)
        self._ring = Ring("frames", RING_BYTES)
        self._loaded = dict[Attach, Loaded]()
        try:
            names = {place: PROGRAMS + name for place, name in programs.items()}
            self._loaded = kernel.load_beside(
                names, {"trace": self._table}, {tapped_programs.RING_SYMBOL + "frames": self._ring.fileno()}
            )
            for place, loaded in self._loaded.items():
                kernel.swap(place, loaded)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        return self._ring.fileno()

    def set_prefilter(self, prefilter: Mapping[str, int]) -> None:
        """Record frames that match from now on. ``prefilter`` holds fields of PREFILTER; absent ones match all."""
        row = np.zeros(1, PREFILTER)
        for name, value in prefilter.items():
            row[name] = value
        self._budget["left"] = 0  # record nothing while the prefilter is half written
        self._prefilter[:] = row

    def allow(self, frames: int) -> int:
        """Let each worker record at most ``frames`` more. Return how many matching frames were not recorded so far."""
        skipped = int(self._budget["skipped"].sum()) + self._pairs.lost
        self._budget["skipped"] = self._pairs.lost = 0
        self._budget["left"] = frames
        return skipped

    def read(self) -> Iterator[TapRecord]:
        """Yield the frames that are complete in the ring."""
        ahead_ns = time.time_ns() - (time.monotonic_ns() - OFFSET_NS)
        for data in self._ring.records():
            recorded = self._pairs.add(data, ahead_ns)
            if recorded is not None:
                yield recorded

    def close(self) -> None:
        """Restore the usual programs, unless they have been detached meanwhile."""
        with contextlib.suppress(SetupError):
            for place in self._loaded:
                self._kernel.swap(place, self._kernel.loaded[place])
        for loaded in self._loaded.values():
            os.close(loaded.descriptor)
        self._loaded = {}
        self._ring.close()
        os.close(self._table)
