"""The mux's packet loop: reads frames from the ring, runs the data path, sends what it returns.

It relies on the event loop to call ``read`` when the ring has frames, and ``retry`` when a next hop becomes known.
"""

import ctypes
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from lbmux.daemons.pending_neighbours import PendingNeighbours
from lbmux.datapath.frame import UNFINISHED_CHECKSUM
from lbmux.datapath.verdicts import PASSES, Verdict
from lbmux.frames.batch import CAPACITY, Batch
from lbmux.frames.packet_ring import PacketRing
from lbmux.metrics.loop_histograms import LoopHistograms
from lbmux.targets.native import Worker
from lbmux.targets.regions import now_ticks
from lbmux.tracing.trace_event import TraceEvent
from lbmux.tracing.trace_hub import NO_EVENTS, Source, TraceHub
from lbmux.wire.numbers import LOOPBACK

BATCHES_A_TURN, LONG_TURN_S = 16, 0.004
"""Limits of one turn before the event loop runs its other callbacks: batches, seconds.  Most turns take 1 ms.  A
request to the control socket takes up to five turns.
"""
BEHIND_S = 0.05
"""The loop is behind once its ring has not been empty for this time."""
SHORTEST = 8
"""The least frames of a full batch."""

HandlePunted = Callable[[Batch, Sequence[TraceEvent]], None]
"""The slow path: gets a batch as the data path left it, and the trace events of its first frames."""


def no_slow_path(batch: Batch, events: Sequence[TraceEvent]) -> None:
    """Ignore punted frames."""


ToOwnHost = Callable[[Batch, NDArray[np.intp]], None]
"""An edge's agent: gets the frames of a batch, by index, that the data path forwarded to the mux's own host."""


class PacketLoop:
    """Forwards batches between the ring, the data path and the slow path."""

    def __init__(self, ring: PacketRing, worker: Worker, slow_path: HandlePunted = no_slow_path) -> None:
        """``slow_path`` gets every batch in which the data path punted a frame."""
        self.ring, self._worker, self._slow_path = ring, worker, slow_path
        self.to_own_host: ToOwnHost | None = None
        self.pending_neighbours = PendingNeighbours()
        self.loop_histograms = LoopHistograms()
        self.sample: Callable[[Batch], None] | None = None
        """Gets each batch as it was received."""
        self._trace_hub: TraceHub | None = None
        self._batch = Batch()
        self._reads = self._reads_before = 0
        self._filled_at: float | None = None
        """Since when the ring has not been empty, in monotonic seconds; None while it is."""

    def warm_up(self) -> None:
        """Compile everything that a packet needs, or load it from the cache. Pending frames stay pending."""
        batch = self.pending_neighbours.batch
        batch.count = 0
        self._worker.forward(batch, now_ticks())
        self.ring.receive(Batch(0))
        self.ring.send(batch)
        self.ring.release(batch)

    def read(self) -> None:
        """Forward what the ring has, up to BATCHES_A_TURN batches; stop early after LONG_TURN_S.

        The time limit matters in the slow path: a batch that is punted as a whole costs as much as hundreds that are
        forwarded. Batches therefore get shorter while they take longer than half a turn.
        """
        begun = now = time.monotonic()
        if self._filled_at is None:
            self._filled_at = begun
        for _ in range(BATCHES_A_TURN):
            count, before, now = self.turn(), now, time.monotonic()
            capacity = self._batch.capacity
            if count < capacity:
                self._filled_at = None
            is_long = now - before > LONG_TURN_S / 2
            self._batch.capacity = max(capacity // 2, SHORTEST) if is_long else min(2 * capacity, CAPACITY)
            if not count or now - begun > LONG_TURN_S:
                break
        self._reads += 1

    def is_behind(self) -> bool:
        """Return whether frames have waited for the loop all the time for BEHIND_S."""
        return self._filled_at is not None and time.monotonic() - self._filled_at > BEHIND_S

    def made_progress(self) -> bool:
        """Return whether the loop read the ring since the last call, or the ring has nothing to read."""
        before, self._reads_before = self._reads_before, self._reads
        return self._reads != before or not self.ring.waits()

    def turn(self) -> int:
        """Receive, forward, send and release one batch; returns its number of frames."""
        ring, batch = self.ring, self._batch
        count = ring.receive(batch)
        if count:
            self.loop_histograms.batch(count)
            if self.sample is not None:
                self.sample(batch)
            trace_hub = self._trace_hub
            events = self._forward(batch, ring, trace_hub)
            if batch.verdict[:count].max() >= PASSES:  # most batches are forwarded entirely
                self._keep_unresolved(batch, time.monotonic())
                self._slow_path(batch, events)
            if trace_hub is not None and events:
                trace_hub.tell(events)
            self._deliver(batch)
            ring.release(batch)
        return count

    def retry(self) -> None:
        """Forward the frames that wait for a MAC address; those whose next hop is still unknown keep waiting."""
        if len(self.pending_neighbours):
            since, batch = self.pending_neighbours.take(time.monotonic())
            trace_hub = self._trace_hub
            events = self._forward(batch, self.pending_neighbours, trace_hub)
            self._keep_unresolved(batch, since)
            self._slow_path(batch, events)
            if trace_hub is not None:
                trace_hub.tell(events)
            self._deliver(batch)

    def watch(self, trace_hub: TraceHub | None) -> None:
        """Report frames to ``trace_hub`` from the next batch on; None stops."""
        self._trace_hub = trace_hub

    def _forward(self, batch: Batch, source: Source, trace_hub: TraceHub | None) -> list[TraceEvent]:
        """Forward a batch; returns its trace events, to be published after the slow path has handled the batch."""
        if trace_hub is None:
            if self.loop_histograms.is_timed:
                self._forward_timed(batch)
            else:
                self._worker.forward(batch, now_ticks())
                self._send(batch)
            return NO_EVENTS
        originals = trace_hub.before(batch, source)
        self._worker.forward(batch, now_ticks())
        self._send(batch)
        return trace_hub.after(batch, originals) if originals else NO_EVENTS

    def _forward_timed(self, batch: Batch) -> None:
        begun = time.perf_counter_ns()
        self._worker.forward(batch, now_ticks())
        forwarded = time.perf_counter_ns()
        self._send(batch)
        self.loop_histograms.took("forward", batch.count, forwarded - begun)
        self.loop_histograms.took("send", batch.count, time.perf_counter_ns() - forwarded)

    def _send(self, batch: Batch) -> None:
        """Send the forwarded frames, except those to this mux's own host."""
        here = _to_own_host(batch) if self.to_own_host is not None else NONE
        if len(here) == 0:
            self.ring.send(batch)
            return
        batch.verdict[here] = Verdict.UNSENT  # the ring must not send them
        self.ring.send(batch)
        batch.verdict[here] = Verdict.FORWARDED

    def _deliver(self, batch: Batch) -> None:
        """Give the agent the frames to this host, as the last step: it rewrites them in place."""
        if self.to_own_host is not None and len(here := _to_own_host(batch)):
            self.to_own_host(batch, here)

    def _keep_unresolved(self, batch: Batch, since: float) -> None:
        for index in np.flatnonzero(batch.verdict[: batch.count] == Verdict.NO_NEIGHBOUR).tolist():
            frame = ctypes.string_at(int(batch.address[index]), int(batch.length[index]))
            # The data path has finished the checksum; finishing it again would corrupt it.
            self.pending_neighbours.add(frame, int(batch.flags[index]) & ~UNFINISHED_CHECKSUM, since)


NONE: NDArray[np.intp] = np.empty(0, np.intp)


def _to_own_host(batch: Batch) -> NDArray[np.intp]:
    """Return the indices of the frames that the data path forwarded to this host itself."""
    count = batch.count
    return np.flatnonzero((batch.verdict[:count] == Verdict.FORWARDED) & (batch.interface[:count] == LOOPBACK))
