"""Send a capture's frames on an interface, at a steady rate or at their recorded times.  Needs CAP_NET_RAW."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lbmux.codegen.compiled import compiled
from lbmux.datapath.headers import ethernet
from lbmux.datapath.memory import at_address, u16, u32, u64
from lbmux.errors import CaptureError
from lbmux.frames.captured_frames import CapturedFrames
from lbmux.frames.packet_ring import PacketRing
from lbmux.tools.replay.looped_capture import LoopedCapture

RING_FRAMES = 16
"""Frames of the receive ring, which is never read."""
LONGEST_SILENCE_NS = 1_000_000_000
"""Longer recorded gaps are shortened to this."""
SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Sent:
    """The result: the interface accepted ``sent`` of ``packets``.  ``skipped`` is as in replay.Result."""

    packets: int
    sent: int
    seconds: float
    skipped: dict[int, int] = field(default_factory=dict)
    damage: CaptureError | None = field(default=None, compare=False)

    @property
    def packets_per_second(self) -> float:
        return self.sent / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Macs:
    """MAC addresses as 48-bit integers in load order.

    ``every``: set them in all frames, not only in those that were captured without an Ethernet header.
    """

    source: int
    destination: int
    every: bool


class Pace:
    """When frames are due, in nanoseconds after the first: at ``pps`` per second, or as recorded."""

    def __init__(self, pps: int | None) -> None:
        self._pps = pps
        self._frames = 0
        self._due_ns = 0  # of the previous frame
        self._time_ns: int | None = None  # its recorded time

    def due(self, time_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the due times of the next frames, given their recorded times."""
        if self._pps:
            due = (np.arange(len(time_ns)) + self._frames) * SECOND_NS // self._pps
        else:
            before = time_ns[0] if self._time_ns is None else self._time_ns
            silences = np.diff(time_ns, prepend=before).clip(0, LONGEST_SILENCE_NS)
            due = self._due_ns + np.cumsum(silences)
        self._frames += len(time_ns)
        self._due_ns, self._time_ns = int(due[-1]), int(time_ns[-1])
        return due


class Wire:
    """An interface to send frames on.  Raise SetupError if it cannot be opened."""

    def __init__(self, interface: str, macs: Macs) -> None:
        self._macs = macs
        self._ring = PacketRing(interface, RING_FRAMES)

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *error: object) -> None:
        self._ring.close()

    def warm_up(self) -> None:
        """Compile, or load from the cache, what sending needs."""
        nothing = CapturedFrames(1)
        self._ring.send(nothing)
        self.send(nothing, nothing.time_ns, 0)

    def send(self, frames: CapturedFrames, due_ns: NDArray[np.int64], start_ns: int) -> int:
        """Send each frame when it is due after ``start_ns`` (monotonic clock).  Returns how many were accepted."""
        frames.verdict[: frames.count] = 0
        frames.interface[: frames.count] = 0
        _readdress(frames.address, frames.count, self._macs.source, self._macs.destination, self._macs.every)
        first, sent = 0, 0
        while first < frames.count:
            now_ns = time.monotonic_ns() - start_ns
            end = int(np.searchsorted(due_ns, now_ns, side="right"))
            if end > first:
                sent += self._ring.send(frames.part(first, end))
                first = end
            else:
                time.sleep((int(due_ns[first]) - now_ns) / SECOND_NS)
        return sent


def put_on_wire(
    looped: LoopedCapture, wire: Wire, pps: int | None = None, tell: Callable[[int], None] | None = None
) -> Sent:
    """Send a capture.  ``tell`` is called with the offset in the capture, in bytes."""
    pace, sent, damage = Pace(pps), 0, None
    wire.warm_up()
    start = time.monotonic_ns()
    try:
        for frames in looped.batches():
            sent += wire.send(frames, pace.due(frames.time_ns[: frames.count]), start)
            if tell:
                tell(looped.offset)
    except CaptureError as error:
        damage = error
    seconds = (time.monotonic_ns() - start) / SECOND_NS
    return Sent(looped.packets, sent, seconds, looped.skipped, damage)


@compiled
def _readdress(address, count, source, destination, every):  # type: ignore[no-untyped-def]
    for index in range(count):
        header = ethernet(at_address(address[index]), 0)
        if every or (header.destination_low | header.source_low) == 0:
            header.destination_low, header.destination_high = u32(destination), u16(u64(destination) >> u64(32))
            header.source_high, header.source_low = u16(source), u32(u64(source) >> u64(16))
