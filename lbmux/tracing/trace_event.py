"""A trace event: one frame of a mux or an agent, its verdict, and what the slow path did with it.

trace_hub.py makes the events.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from lbmux.datapath.verdicts import Verdict
from lbmux.frames.frame_copy import FrameCopy
from lbmux.slowpath.mux_output import BY_ROUTE
from lbmux.tracing.header_summary import HeaderSummary
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


def by_route(packet: bytes) -> FrameCopy:
    """Copy a packet that the kernel routes, with a blank Ethernet header: its interface is not known."""
    frame = ethernet_header(version_of(packet)) + packet
    return FrameCopy(frame, len(frame), BY_ROUTE, time.time_ns())
