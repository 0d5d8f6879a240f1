"""Replay a capture through the data path of a mux, without root and without a network.

It uses the capture files and the native target, and builds the tables from a configuration as a mux does.  The clock
is the capture's, so flows become idle as they did on the wire.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from lbmux.addresses import Address
from lbmux.config.models import Config
from lbmux.datapath.tables import LOOKUPS, TICK_SHIFT
from lbmux.datapath.verdicts import PASSES, Verdict
from lbmux.errors import CaptureError
from lbmux.frames.captured_frames import CapturedFrames
from lbmux.frames.pcap import PcapWriter
from lbmux.linux.next_hops import NextHop
from lbmux.tables.mux_tables import MuxTables, sizes_for
from lbmux.targets.native import Worker
from lbmux.targets.regions import Tables
from lbmux.tools.looped_capture import LoopedCapture

STEP_SHIFT = 6
"""Frames whose ticks differ only in this many low bits (67 ms) run through the data path as one batch."""
TICKS_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Count:
    packets: int
    bytes: int


@dataclass(frozen=True)
class Result:
    """The result of a replay.  ``backends``: by SERVICE/BACKEND.  ``damage``: the error that ended a damaged capture.

    ``skipped``: packets of unknown link types, by link type; they are not counted in ``packets``.
    """

    packets: int
    bytes: int
    seconds: float
    written: int | None
    verdicts: dict[str, Count]
    backends: dict[str, Count]
    skipped: dict[int, int] = field(default_factory=dict)
    damage: CaptureError | None = field(default=None, compare=False)

    @property
    def packets_per_second(self) -> float:
        return self.packets / self.seconds if self.seconds else 0.0


class ReplayMux:
    """A mux's tables and data path, with the same next hop for every backend."""

    def __init__(self, config: Config, local: Iterable[Address], hop: NextHop) -> None:
        """``local``: outer source addresses, one of each family.  TableError if the configuration does not fit."""
        self._tables = Tables.allocate(sizes_for(config))
        self._control = MuxTables(self._tables, *local)
        self._control.commit(self._control.plan(config))
        for destination in self._control.destinations():
            self._control.set_next_hop(destination, hop)
        self._worker = Worker(self._tables)
        self._now = np.int64(np.iinfo(np.int64).min)

    def forward(self, frames: CapturedFrames) -> None:
        """Forward a batch at the times of its frames.  Like a mux's clock, time never goes back."""
        if not frames.count:  # an empty batch still compiles the code
            self._worker.forward(frames, 0)
            return
        ticks = np.maximum.accumulate(frames.time_ns[: frames.count] >> TICK_SHIFT)
        np.maximum(ticks, self._now, out=ticks)
        self._now = ticks[-1]
        cuts = np.flatnonzero(np.diff(ticks >> STEP_SHIFT)) + 1
        for first, end in pairwise((0, *cuts.tolist(), frames.count)):
            self._worker.forward(frames.part(first, end), int(ticks[first]) & TICKS_MASK)

    def verdicts(self) -> dict[str, Count]:
        """Packets and bytes by verdict, without verdicts that did not occur."""
        rows = self._tables.verdicts[0]
        return {v.label: Count(int(rows[v]["packets"]), int(rows[v]["bytes"])) for v in Verdict if rows[v]["packets"]}

    def backends(self) -> dict[str, Count]:
        """What was sent to each backend, outer headers included."""
        rows = self._tables.traffic[0]
        return {
            f"{service}/{backend}": Count(int(rows[row]["packets"]), int(rows[row]["bytes"]))
            for (service, backend), row in self._control.rows.items()
        }

    def lookups(self) -> dict[str, int]:
        """Flow table look-ups by result (datapath.tables.LOOKUPS)."""
        return dict(zip(LOOKUPS, self._tables.lookups[0].tolist(), strict=False))


def replay(
    looped: LoopedCapture, mux: ReplayMux, writer: PcapWriter | None = None, tell: Callable[[int], None] | None = None
) -> Result:
    """Run a capture through a mux.

    ``writer`` gets the frames that the mux would send.  ``tell`` is called with the offset in the capture, in bytes.
    """
    mux.forward(looped.frames)
    if writer:
        writer.write(looped.frames, PASSES)
    damage = None
    start = time.perf_counter()
    try:
        for frames in looped.batches():
            mux.forward(frames)
            if writer:
                writer.write(frames, PASSES)
            if tell:
                tell(looped.offset)
    except CaptureError as error:
        damage = error
    if writer:
        writer.flush()
    seconds = time.perf_counter() - start
    written = writer.frames if writer else None
    counts = (mux.verdicts(), mux.backends(), looped.skipped)
    return Result(looped.packets, looped.bytes, seconds, written, *counts, damage)
