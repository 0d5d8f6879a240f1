"""Trace events: makes one for each frame that trace clients may want to see.

An event has the frame as it arrived and as it left, its verdict, its service and backend, and what the slow path did.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from lbmux.datapath.verdicts import Verdict
from lbmux.frames.frame_copy import FrameCopy
from lbmux.slowpath.mux_output import BY_ROUTE
from lbmux.slowpath.tunnels import Ports
from lbmux.tables.snapshot import Snapshot
from lbmux.tracing.event_owner import EventOwner
from lbmux.tracing.header_summary import HeaderSummary
from lbmux.tracing.inner_frames import flow_at_agent
from lbmux.wire.packet import ethernet_header, version_of

NO_DROPS = frozenset(
    ("from_mux", "reassembled", "path_mtu_learned", "fragment_timeout", "fragment_evicted", "reassembly_timeout",
     "reassembly_evicted")
)  # fmt: skip
"""Counters of the slow path that do not mean that this frame was dropped: it waits for the rest of its datagram, it was
for the mux itself, or it made other frames leave the buffer."""


@dataclass
class SlowPathNote:
    """What the slow path did with a frame: the names of its counters, and the frames that it sent."""

    did: list[str] = field(default_factory=list)
    sent: list[FrameCopy] = field(default_factory=list)

    @property
    def is_drop(self) -> bool:
        """Whether it dropped the frame.  A frame without a count waits, or is left to the kernel's stack."""
        return not self.sent and not NO_DROPS.issuperset(self.did)


@contextlib.contextmanager
def note_slow_path(event: "TraceEvent", counts: Counter[str]) -> Iterator[SlowPathNote]:
    """Note what the slow path does with a frame in this block: it counts in ``counts`` and adds frames to ``sent``."""
    before, event.slow = counts.copy(), SlowPathNote()
    yield event.slow
    event.slow.did[:0] = counts - before


@dataclass
class TraceEvent:
    """A frame as it ``came``, its verdict, and as it ``left``, or None if it did not leave."""

    came: FrameCopy
    verdict: Verdict
    service: str | None = None
    backend: str | None = None
    left: FrameCopy | None = None
    flow: bytes | None = None
    """The frame between client and VIP, if it is not the one that came."""
    is_reply: bool = False
    """Whether it is on its way to the client; only an agent sees replies."""
    slow: SlowPathNote | None = None
    """What the slow path did, if it handled the frame."""

    @property
    def is_drop(self) -> bool:
        return self.verdict.kind == "drop" or (self.slow is not None and self.slow.is_drop)

    @cached_property
    def header_summary(self) -> HeaderSummary:
        return HeaderSummary.read(self.came.data if self.flow is None else self.flow)


class EventMaker:
    """Makes the events of one mux or agent. ``snapshot`` returns the services in force."""

    def __init__(self, snapshot: Callable[[], Snapshot], is_agent: bool) -> None:
        self._snapshot, self._is_agent, self._owner = snapshot, is_agent, EventOwner()

    def make(
        self, original: FrameCopy, verdict: Verdict, target: int, left: FrameCopy | None, is_reply: bool
    ) -> TraceEvent:
        """Return the event of a frame. ``target`` is the row that the data path chose, or -1."""
        event, snapshot = TraceEvent(original, verdict, left=left, is_reply=is_reply), self._snapshot()
        if self._is_agent:
            event.flow = flow_at_agent(original.data, left and left.data, verdict, Ports.of(snapshot.tables))
        event.service, event.backend = self._owner.find(snapshot, event.header_summary, target)
        return event


def by_route(packet: bytes) -> FrameCopy:
    """Copy a packet that the kernel routes, with a blank Ethernet header: its interface is not known."""
    frame = ethernet_header(version_of(packet)) + packet
    return FrameCopy(frame, len(frame), BY_ROUTE, time.time_ns())
