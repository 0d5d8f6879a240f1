"""Streams trace events to `lbmux trace` and `lbmux capture` over the control socket.

The packet loop has frames copied before the data path, and pairs the copies with the verdicts and with what the slow
path did.  Without a client the loop does none of this.  Frames that the kernel's programs forward come from
lbmux.tracing.kernel_recording.
"""

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Protocol

from lbmux.api.answers import SentFrame, SlowPathReport, TraceBatch, TracedFrame, TraceStart
from lbmux.api.protocol import VERSION
from lbmux.api.requests import Trace
from lbmux.api.status_tables import interface_name
from lbmux.datapath.verdicts import Verdict
from lbmux.frames.batch import Batch
from lbmux.frames.frame_copy import FrameCopy
from lbmux.frames.tap_reader import TapRecord
from lbmux.frames.xdp import Kernel
from lbmux.slowpath.mux_output import BY_ROUTE
from lbmux.slowpath.tunnels import Ports
from lbmux.tables.snapshot import Snapshot
from lbmux.targets.bpf.syscall import Attach
from lbmux.targets.regions import Tables
from lbmux.tracing.event_filter import parse
from lbmux.tracing.kernel_recording import KernelRecording
from lbmux.tracing.prefilter_builder import EVERYTHING, Prefilter, prefilter_of
from lbmux.tracing.trace_budget import FRAMES_A_SECOND, Budget
from lbmux.tracing.trace_client import TraceClient
from lbmux.tracing.trace_event import EventMaker, TraceEvent

PAUSE_S = 0.02
"""Pause after the budget of frames is spent."""
HEARTBEAT_S = 0.5
"""Longest time between two messages, after which a client that has gone is noticed."""

OF_REPLIES = (Verdict.REPLIED, Verdict.HAIRPIN, Verdict.RESET_SUPPRESSED)
"""Verdicts that an agent's kernel programs give replies; all others are for packets to the host."""
NO_COPIES: list[FrameCopy] = []
NO_EVENTS: list[TraceEvent] = []


class Source(Protocol):
    """The source of a batch, if it knows the arrival times of its frames."""

    def arrivals(self, count: int) -> list[tuple[int, int]]:
        """Return arrival (ns since 1970) and bytes on the wire of the first ``count`` frames."""


class TracedDriver(Protocol):
    """What the hub needs of a daemon's driver (lbmux.daemons.drivers)."""

    @property
    def role(self) -> str: ...

    @property
    def interface(self) -> str: ...

    @property
    def tables(self) -> Tables: ...

    @property
    def worker(self) -> int: ...

    @property
    def kernel(self) -> Kernel | None: ...

    @property
    def programs(self) -> Mapping[Attach, str]: ...


class TraceHub:
    """Connects a packet loop with its trace clients; calls ``switch`` with itself while a client watches, else None.

    It also switches itself off while it pauses, so that a busy loop pays only for the frames that are examined.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], switch: "Switch", driver: TracedDriver) -> None:
        self._snapshot, self._switch, self._interface = snapshot, switch, driver.interface
        self._counted = driver.tables.verdicts[driver.worker]["packets"]
        self._pausing = False
        self._program, self._is_agent = driver.role, driver.role == "agent"
        self._clients: set[TraceClient] = set()
        self._events = EventMaker(snapshot, self._is_agent)
        self._budget = Budget(FRAMES_A_SECOND, time.monotonic())
        self._recording: KernelRecording | None = None
        if driver.kernel is not None:
            self._recording = KernelRecording(
                driver.kernel, driver.programs, FRAMES_A_SECOND, self._recorded, self._skipped
            )

    def before(self, batch: Batch, source: Source | None = None, came_by: int = 0) -> list[FrameCopy]:
        """Copy the batch's first frames, as many as the budget allows.

        Without a ``source`` they arrived now.  ``came_by``: the interface, if the batch does not have it.
        """
        count = self._budget.take(batch.count, time.monotonic())
        if self._budget.is_spent and not self._pausing:
            self._pause(after=batch.count)
        frame_copies = [
            FrameCopy.from_batch(batch, index, time.time_ns(), came_by or int(batch.interface[index]))
            for index in range(count)
        ]
        if source is None:
            return frame_copies
        known = zip(frame_copies, source.arrivals(count), strict=True)
        return [frame_copy._replace(time_ns=time_ns, length=length) for frame_copy, (time_ns, length) in known]

    def _pause(self, after: int) -> None:
        """Switch off for PAUSE_S; ``after``: the frames of this batch, which are not counted yet."""
        self._pausing = True
        self._switch(None)
        asyncio.get_running_loop().call_later(PAUSE_S, self._go_on, int(self._counted.sum()) + after)

    def _go_on(self, counted: int) -> None:
        self._pausing = False
        self._budget.skipped += max(0, int(self._counted.sum()) - counted)
        if self._clients:
            self._switch(self)

    def after(
        self, batch: Batch, frame_copies: list[FrameCopy], leaves_by: int = 0, is_reply: bool = False
    ) -> list[TraceEvent]:
        """Pair the copies with the verdicts, and with the frames as they leave, which are still in the batch's memory.

        ``leaves_by``: the outgoing interface of frames for which the batch has none.
        """
        now_ns, events = time.time_ns(), list[TraceEvent]()
        for index, original in enumerate(frame_copies):
            verdict, target, left = Verdict(int(batch.verdict[index])), int(batch.target[index]), None
            if verdict.kind == "send":
                left_by = leaves_by or int(batch.interface[index]) or original.interface
                left = FrameCopy.from_batch(batch, index, now_ns, left_by)
            events.append(self._events.make(original, verdict, target, left, is_reply))
        return events

    def tell(self, frames: Iterable[TraceEvent]) -> None:
        """Offer events to the clients, after the slow path has handled the batch."""
        for event in frames:
            for client in self._clients:
                client.offer(event)

    def _recorded(self, frame: TapRecord) -> None:
        is_reply = self._is_agent and frame.verdict in OF_REPLIES
        self.tell([self._events.make(frame.came, frame.verdict, frame.target, frame.left, is_reply)])

    def _skipped(self, frames: int) -> None:
        self._budget.skipped += frames

    async def watch(self, request: Trace) -> AsyncIterator[TraceStart | TraceBatch]:
        """Stream first what is traced, then matches as they come, with the number of frames that were not examined."""
        client = TraceClient(parse(request.filter, self._snapshot()), self._prefilter(request.filter))
        self._clients.add(client)
        if not self._pausing:
            self._switch(self)
        skipped = self._budget.skipped
        try:
            unseen = await self._record()
            yield TraceStart(VERSION, self._program, self._interface, unseen)
            while True:
                with contextlib.suppress(TimeoutError):  # then send an empty message: it fails if the client left
                    await asyncio.wait_for(client.matched.wait(), HEARTBEAT_S)
                events, lost = client.take()
                more = self._budget.skipped - skipped
                skipped += more
                yield TraceBatch([self._describe(event) for event in events], more, lost)
        finally:
            self._clients.discard(client)
            if not self._clients:
                self._switch(None)
            await self._record()

    def _prefilter(self, filter: str) -> Prefilter:
        """Return the prefilter; at an agent, where frames have outer headers, it only goes by the kind of verdict."""
        prefilter = prefilter_of(filter)
        return {name: prefilter[name] for name in EVERYTHING} if self._is_agent else prefilter

    async def _record(self) -> str:
        """Record what the clients want; return why the kernel's programs cannot be recorded, or ""."""
        return await self._recording.follow(client.prefilter for client in self._clients) if self._recording else ""

    def _describe(self, event: TraceEvent) -> TracedFrame:
        original, slow = self._sent_frame(event.came), event.slow
        left = None if event.left is None else self._sent_frame(event.left)
        return TracedFrame(
            program=self._program,
            time_ns=original.time_ns,
            interface=original.interface,
            line=str(event.header_summary),
            frame=original.frame,
            length=original.length,
            verdict=event.verdict.label,
            kind=event.verdict.kind,
            dropped=event.is_drop,
            service=event.service,
            backend=event.backend,
            left=left.frame if left else None,
            left_by=left.interface if left else None,
            left_ns=left.time_ns if left else None,
            left_length=left.length if left else None,
            is_reply=event.is_reply,
            tunnel_ports=Ports.of(self._snapshot().tables)._asdict(),
            slowpath=None if slow is None else SlowPathReport(slow.did, [self._sent_frame(one) for one in slow.sent]),
        )

    def _sent_frame(self, frame: FrameCopy) -> SentFrame:
        data = base64.b64encode(frame.data).decode()
        return SentFrame(frame.time_ns, self._named(frame.interface), data, frame.length)

    def _named(self, index: int) -> str:
        if index == BY_ROUTE:
            return "route"
        return interface_name(index) if index else self._interface


Switch = Callable[[TraceHub | None], None]
