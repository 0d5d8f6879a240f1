"""Watching a mux or an agent: what `lbmux trace` and `lbmux capture` are sent, over the control socket as a stream.

Around the data path: frames are copied before it, and paired afterwards with what it said of them.  Without a
watcher the packet loop knows of none.  What the kernel's programs forward comes from lbmux.programs.recording.
"""

import asyncio
import base64
import contextlib
import ctypes
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from lbmux.control import watching
from lbmux.control.moment import Moment
from lbmux.control.show import interface_name
from lbmux.control.sieve import EVERYTHING, Sieve, sieve_of
from lbmux.control.watching import Budget, Names, Seen
from lbmux.datapath.verdicts import Verdict
from lbmux.frames.batch import Batch
from lbmux.frames.recorder import Recorded
from lbmux.programs.drivers import Driver
from lbmux.programs.recording import Recording

FRAMES_A_SECOND = 500
"""At most so many are looked at: headers are read in plain Python, on the loop that forwards."""
MOST_WAITING = 1000
"""Matches that a watcher has not been sent yet."""
HEARTBEAT_S = 0.5
"""How soon a watcher that has gone is noticed, and frames are sent on."""

Copies = list[tuple[bytes, int]]
"""Frames as they came, with the interface that each came by."""
NO_COPIES: Copies = []


@dataclass(eq=False)
class Watcher:
    """One reader, ``test`` its filter; ``lost`` counts the matches that it was too slow for."""

    test: watching.Test
    sieve: Sieve
    found: list[Seen] = field(default_factory=list)
    matched: asyncio.Event = field(default_factory=asyncio.Event)
    lost: int = 0

    def offer(self, seen: Seen) -> None:
        if not self.test(seen):
            return
        if len(self.found) >= MOST_WAITING:
            self.lost += 1
            return
        self.found.append(seen)
        self.matched.set()

    def take(self) -> tuple[list[Seen], int]:
        """The matches since, and how many were lost."""
        (found, self.found), (lost, self.lost) = (self.found, []), (self.lost, 0)
        self.matched.clear()
        return found, lost


class Watching:
    """Of a daemon's packet loop, which it tells by ``switch`` whether somebody watches: itself, or None."""

    def __init__(self, moment: Callable[[], Moment], switch: "Switch", driver: Driver) -> None:
        self._moment, self._switch, self._interface = moment, switch, driver.interface
        self._program, self._is_agent = driver.role, driver.role == "agent"
        self._watchers: set[Watcher] = set()
        self._names = Names()
        self._budget = Budget(FRAMES_A_SECOND, time.monotonic())
        self._recording: Recording | None = None
        if driver.kernel is not None:
            self._recording = Recording(
                driver.kernel, driver.programs, FRAMES_A_SECOND, self._saw_recorded, self._skipped
            )

    def before(self, batch: Batch, came_by: int = 0) -> Copies:
        """Copies of the batch's first frames, as many as may be looked at; ``came_by`` if the batch does not say it."""
        now, budget = time.monotonic(), self._budget
        if now < budget.until:  # as most are while there is much to do
            budget.skipped += batch.count
            return NO_COPIES
        count = budget.take(batch.count, now)
        return [(_bytes(batch, index), came_by or int(batch.interface[index])) for index in range(count)]

    def after(self, batch: Batch, copies: Copies, leaves_by: int = 0) -> None:
        """Pairs them with what became of the frames; while those are still in the batch's memory.

        ``leaves_by``: the interface by which frames leave for which the batch has none.
        """
        now_ns = time.time_ns()
        for index, (came, came_by) in enumerate(copies):
            verdict, target = Verdict(int(batch.verdict[index])), int(batch.target[index])
            left, left_by = None, 0
            if verdict.kind == "send":
                left, left_by = _bytes(batch, index), leaves_by or int(batch.interface[index]) or came_by
            self._saw(now_ns, came, verdict, target, came_by, left, left_by)

    def _saw_recorded(self, frame: Recorded) -> None:
        self._saw(
            frame.time_ns, frame.came, frame.verdict, frame.target, frame.came_by, frame.left, frame.left_by
        )

    def _saw(
        self, time_ns: int, came: bytes, verdict: Verdict, target: int, came_by: int, left: bytes | None, left_by: int
    ) -> None:
        seen = Seen(time_ns, came, verdict, None, None, came_by, left, left_by)
        if self._is_agent:
            seen.flow = watching.flow_at_agent(came, left, verdict)
        seen.service, seen.backend = self._names.of(self._moment(), seen.heading, target)
        for watcher in self._watchers:
            watcher.offer(seen)

    def _skipped(self, frames: int) -> None:
        self._budget.skipped += frames

    async def watch(self, filter: str = "") -> AsyncIterator[dict[str, Any]]:
        """A stream: first what is watched, then matches as they come, and what was not looked at meanwhile."""
        watcher = Watcher(watching.parse(filter, self._moment()), self._sieve(filter))
        self._watchers.add(watcher)
        self._switch(self)
        skipped = self._budget.skipped
        try:
            unseen = await self._record()
            yield {"version": 1, "program": self._program, "interface": self._interface, "unseen": unseen}
            while True:
                with contextlib.suppress(TimeoutError):  # said all the same: so a client that has gone is noticed
                    await asyncio.wait_for(watcher.matched.wait(), HEARTBEAT_S)
                found, lost = watcher.take()
                more = self._budget.skipped - skipped
                skipped += more
                yield {"frames": [self._describe(seen) for seen in found], "skipped": more, "lost": lost}
        finally:
            self._watchers.discard(watcher)
            if not self._watchers:
                self._switch(None)
            await self._record()

    def _sieve(self, filter: str) -> Sieve:
        """At an agent it is by other headers than the filter's that a program would have to judge: only the kind."""
        sieve = sieve_of(filter)
        return {name: sieve[name] for name in EVERYTHING} if self._is_agent else sieve

    async def _record(self) -> str:
        """Have recorded what the watchers want; why the kernel's programs cannot be watched, where they cannot."""
        return await self._recording.follow(w.sieve for w in self._watchers) if self._recording else ""

    def _describe(self, seen: Seen) -> dict[str, Any]:
        return {
            "program": self._program,
            "time_ns": seen.time_ns,
            "interface": self._named(seen.came_by),
            "line": str(seen.heading),
            "frame": base64.b64encode(seen.came).decode(),
            "verdict": seen.verdict.label,
            "kind": seen.verdict.kind,
            "service": seen.service,
            "backend": seen.backend,
            "left": None if seen.left is None else base64.b64encode(seen.left).decode(),
            "left_by": None if seen.left is None else self._named(seen.left_by),
        }

    def _named(self, index: int) -> str:
        return interface_name(index) if index else self._interface


Switch = Callable[[Watching | None], None]


def _bytes(batch: Batch, index: int) -> bytes:
    return ctypes.string_at(int(batch.address[index]), int(batch.length[index]))
