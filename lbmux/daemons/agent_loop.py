"""The agent's packet loop: tunnelled packets to the local stack, replies from the stack to clients.

It relies on the event loop to call ``inbound`` when a ring has frames, and ``outbound`` when the TUN device has.
"""

import socket
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lbmux.daemons.agent_slow_path_io import SlowAgent
from lbmux.datapath.verdicts import DROPS, PASSES, Verdict
from lbmux.frames.batch import Batch
from lbmux.frames.frame_copy import FrameCopy
from lbmux.frames.packet_ring import PacketRing
from lbmux.frames.raw_sender import RawSender
from lbmux.frames.tun import Tun
from lbmux.targets.native import Worker
from lbmux.targets.regions import now_ticks
from lbmux.tracing.trace_hub import NO_COPIES, NO_EVENTS, TraceHub
from lbmux.wire.numbers import LOOPBACK

CAPACITY = 64
"""Frames in a batch."""
OUTBOUND_BATCHES, INBOUND_BATCHES, LONG_TURN_S = 16, 4, 0.01
"""Limits of one turn.  Fewer packets come in than the TUN device's queue holds (500), and none before it is empty:
replies are neither lost nor late, and what an agent cannot handle is dropped where that costs least, at the ring.  The
time limit matters on a busy host, where probes are answered between two turns.
"""


class AgentLoop:
    """Two handlers, one per direction, each called when its descriptor is readable."""

    def __init__(
        self, rings: Sequence[PacketRing], tun: Tun, sender: RawSender, worker: Worker, slow: SlowAgent, beside: bool
    ) -> None:
        """``rings``: of one interface, the most urgent one first; ``beside``: the kernel's program runs too, and the
        TUN device gets only replies that it cannot translate.
        """
        self._rings, self._tun, self._sender, self._worker, self._slow = rings, tun, sender, worker, slow
        self._beside = beside
        self._batch, self._from_own_mux = Batch(CAPACITY), Batch()
        self._trace_hub: TraceHub | None = None
        self._device = socket.if_nametoindex(tun.name)

    def watch(self, trace_hub: TraceHub | None) -> None:
        """Report frames to ``trace_hub`` from the next batch on; None stops."""
        self._trace_hub = trace_hub

    def warm_up(self) -> None:
        """Compile everything that a packet needs, or load it from the cache."""
        self._batch.count = 0
        self._worker.inbound(self._batch, now_ticks())
        self._worker.outbound(self._batch, now_ticks())
        self._tun.send(self._batch, PASSES)
        self._sender.send(self._batch, DROPS)
        for ring in self._rings:
            ring.receive(self._batch)
            ring.release(self._batch)
        self._tun.receive(self._batch)

    def inbound(self) -> None:
        """Decapsulate tunnelled packets and give them to the local stack, after the replies that wait."""
        self.outbound()
        for ring in self._rings:
            self._read(ring, time.monotonic() + LONG_TURN_S)

    def _read(self, ring: PacketRing, until: float) -> None:
        for _ in range(INBOUND_BATCHES):
            if not ring.receive(self._batch):
                return
            trace_hub = self._trace_hub
            self._process(self._batch, trace_hub.before(self._batch, ring) if trace_hub else NO_COPIES)
            ring.release(self._batch)
            if time.monotonic() > until:
                return

    def from_own_mux(self, batch: Batch, here: NDArray[np.intp]) -> None:
        """Do the same with the frames that the mux of this host tunnelled to it: those at the indices ``here``."""
        mine, count = self._from_own_mux, len(here)
        mine.address[:count], mine.length[:count] = batch.address[here], batch.length[here]
        mine.flags[:count], mine.interface[:count] = 0, LOOPBACK  # the mux has finished their checksums
        mine.count = count
        self._process(mine, self._trace_hub.before(mine) if self._trace_hub else NO_COPIES)

    def _process(self, batch: Batch, originals: list[FrameCopy]) -> None:
        trace_hub = self._trace_hub
        self._worker.inbound(batch, now_ticks())
        self._tun.send(batch, PASSES)
        events = trace_hub.after(batch, originals, self._device) if trace_hub else NO_EVENTS
        self._slow.inbound(batch, events)
        if trace_hub:
            trace_hub.tell(events)

    def outbound(self) -> None:
        """Send replies to clients, with the VIP as source; unchanged if no mux forwarded the connection."""
        for _ in range(OUTBOUND_BATCHES):
            if not self._tun.receive(self._batch):
                return
            trace_hub = self._trace_hub
            originals = trace_hub.before(self._batch, came_by=self._device) if trace_hub else NO_COPIES
            self._worker.outbound(self._batch, now_ticks())
            events = (
                trace_hub.after(self._batch, originals, self._rings[0].index, is_reply=True) if trace_hub else NO_EVENTS
            )
            self._slow.outbound(self._batch, events)
            self._hairpin()
            if self._beside:
                self._slow.only_replies(self._batch)
            self._sender.send(self._batch, DROPS)
            if trace_hub:
                trace_hub.tell(events)

    def _hairpin(self) -> None:
        """Give replies that are addressed to this host back to its stack."""
        verdicts = self._batch.verdict[: self._batch.count]
        hairpin = verdicts == Verdict.HAIRPIN
        if hairpin.any():
            self._tun.send(self._batch, Verdict.HAIRPIN + 1, least=Verdict.HAIRPIN)
            verdicts[hairpin] = Verdict.NO_LOCAL_BACKEND  # the raw sender must not send them
