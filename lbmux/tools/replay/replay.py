"""Replay a capture through the data path of a mux, without root and without a network.

It uses the capture files and the native target, and builds the tables from a configuration as a mux does.  The clock
is the capture's, so flows become idle as they did on the wire.  `replay_pool` adds changes and several muxes.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np

from lbmux.addresses import Address
from lbmux.config.models import Config
from lbmux.datapath.tables import LOOKUPS, TICK_SHIFT
from lbmux.datapath.verdicts import PASSES, Verdict
from lbmux.errors import CaptureError
from lbmux.frames.captured_frames import CapturedFrames
from lbmux.frames.pcap import PcapWriter
from lbmux.linux.next_hops import NextHop
from lbmux.tables import flow_sweep
from lbmux.tables.mux_tables import MuxTables, sizes_for
from lbmux.targets.native import Worker
from lbmux.targets.regions import Tables
from lbmux.tools.replay.flow_outcomes import Effect
from lbmux.tools.replay.looped_capture import LoopedCapture

STEP_SHIFT = 6
SWEEP_TICKS = int(flow_sweep.SWEEP_S * 1e9) >> TICK_SHIFT
"""Frames whose ticks differ only in this many low bits (67 ms) run through the data path as one batch."""
TICKS_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Count:
    packets: int
    bytes: int

    def __add__(self, other: "Count") -> "Count":
        return Count(self.packets + other.packets, self.bytes + other.bytes)


NOTHING = Count(0, 0)


@dataclass(frozen=True)
class ChangeResult:
    """A change that came into force ``at_s`` seconds after the first packet, and its effect on flows."""

    at_s: float
    change: str
    effect: Effect


@dataclass(frozen=True)
class FlowCounts:
    """Flows to VIPs: all, those that a change broke, those whose backend left the tables."""

    all: int
    broken: int
    lost: int


@dataclass(frozen=True)
class Result:
    """The result of a replay.  ``backends``: by SERVICE/BACKEND.  ``damage``: the error that ended a damaged capture.

    ``skipped``: packets of unknown link types, by link type; they are not counted in ``packets``.  ``lookups``: as in
    datapath.tables.LOOKUPS.  ``mapped``: packets whose destination was replaced.  The rest comes from a pool of muxes:
    what each mux got, by name, the changes in order, and the flows.
    """

    packets: int
    bytes: int
    seconds: float
    written: int | None
    verdicts: dict[str, Count]
    backends: dict[str, Count]
    skipped: dict[int, int] = field(default_factory=dict)
    damage: CaptureError | None = field(default=None, compare=False)
    lookups: dict[str, int] = field(default_factory=dict)
    mapped: int | None = None
    muxes: dict[str, Count] = field(default_factory=dict)
    changes: tuple["ChangeResult", ...] = ()
    flows: "FlowCounts | None" = None

    @property
    def packets_per_second(self) -> float:
        return self.packets / self.seconds if self.seconds else 0.0


class ReplayMux:
    """A mux's tables and data path, with the same next hop for every backend."""

    def __init__(self, config: Config, local: Iterable[Address], hop: NextHop) -> None:
        """``local``: outer source addresses, one per family. Raise TableError if the configuration does not fit."""
        self._tables, self._hop = Tables.allocate(sizes_for(config)), hop
        self._now, self._swept = np.int64(np.iinfo(np.int64).min), np.int64(0)
        self.control = MuxTables(self._tables, *local, clock=lambda: int(self._now) & TICKS_MASK)
        self._commit(config)
        self.worker = Worker(self._tables)
        self._sent: dict[str, Count] = {}

    def _commit(self, config: Config) -> None:
        self.control.commit(self.control.plan(config))
        for destination in self.control.destinations():
            self.control.set_next_hop(destination, self._hop)

    def reload(self, config: Config, time_ns: int) -> None:
        """Put a configuration in force at a time of the capture.  Raise TableError if it does not fit."""
        self.backends()
        self._now = np.maximum(self._now, np.int64(time_ns >> TICK_SHIFT))
        self._commit(config)

    def forward(self, frames: CapturedFrames) -> None:
        """Forward a batch at the times of its frames.  Like a mux's clock, time never goes back."""
        if not frames.count:  # an empty batch still compiles the code
            self.worker.forward(frames, 0)
            return
        ticks = np.maximum.accumulate(frames.time_ns[: frames.count] >> TICK_SHIFT)
        np.maximum(ticks, self._now, out=ticks)
        self._now = ticks[-1]
        cuts = np.flatnonzero(np.diff(ticks >> STEP_SHIFT)) + 1
        for first, end in pairwise((0, *cuts.tolist(), frames.count)):
            self.worker.forward(frames.part(first, end), int(ticks[first]) & TICKS_MASK)
        if self._now - self._swept > SWEEP_TICKS:
            self._swept = self._now
            flow_sweep.sweep(self.control, int(self._now) & TICKS_MASK)

    def verdicts(self) -> dict[str, Count]:
        """Packets and bytes by verdict, without verdicts that did not occur."""
        rows = self._tables.verdicts[0]
        return {v.label: Count(int(rows[v]["packets"]), int(rows[v]["bytes"])) for v in Verdict if rows[v]["packets"]}

    def backends(self) -> dict[str, Count]:
        """What was sent to each backend, outer headers included.  A reload may give a row to another backend."""
        rows = self._tables.traffic[0]
        for (service, backend), row in self.control.rows.items():
            name, count = f"{service}/{backend}", Count(int(rows[row]["packets"]), int(rows[row]["bytes"]))
            self._sent[name] = self._sent.get(name, NOTHING) + count
        rows["packets"] = rows["bytes"] = 0
        return dict(self._sent)

    def lookups(self) -> dict[str, int]:
        """Flow table look-ups by result (datapath.tables.LOOKUPS)."""
        return dict(zip(LOOKUPS, self._tables.lookups[0].tolist(), strict=False))


class Forwarder(Protocol):
    """A mux, or a pool of muxes."""

    def forward(self, frames: CapturedFrames) -> None: ...

    def verdicts(self) -> dict[str, Count]: ...

    def backends(self) -> dict[str, Count]: ...

    def lookups(self) -> dict[str, int]: ...


def replay(
    looped: LoopedCapture, mux: Forwarder, writer: PcapWriter | None = None, tell: Callable[[int], None] | None = None
) -> Result:
    """Run a capture through a mux.

    ``writer`` gets the frames that the mux would send.  ``tell`` is called with the offset in the capture, in bytes.
    """
    mux.forward(looped.frames)  # an empty batch compiles the code
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
    return Result(looped.packets, looped.bytes, seconds, written, *counts, damage, mux.lookups(), looped.mapped)
