"""Watching a mux: what `lbmux trace` and `lbmux capture` are sent, over the control socket as a stream.

Around the data path: frames are copied before it, and paired afterwards with what it said of them.  Without a
watcher the packet loop knows of none.  Frames that the kernel's program forwards itself never come here.
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
from lbmux.control.watching import Budget, Heading, Names, Seen
from lbmux.datapath.verdicts import Verdict
from lbmux.frames.batch import Batch

FRAMES_A_SECOND = 500
"""At most so many are looked at: headers are read in plain Python, on the loop that forwards."""
MOST_WAITING = 1000
"""Matches that a watcher has not been sent yet."""
HEARTBEAT_S = 0.5
"""How soon a watcher that has gone is noticed, and frames are sent on."""

Copies = list[tuple[bytes, int]]
"""Frames as they came, with the interface that each came by."""
NOTHING: Copies = []


@dataclass(eq=False)
class Watcher:
    """One reader, ``test`` its filter; ``lost`` counts the matches that it was too slow for."""

    test: watching.Test
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
    """Of a mux's packet loop, which it tells by ``switch`` whether somebody watches: itself, or None."""

    def __init__(
        self, moment: Callable[[], Moment], switch: "Switch", interface: str = "", in_kernel: bool = False
    ) -> None:
        self._moment, self._switch, self._interface, self._in_kernel = moment, switch, interface, in_kernel
        self._watchers: set[Watcher] = set()
        self._names = Names()
        self._budget = Budget(FRAMES_A_SECOND, time.monotonic())

    def before(self, batch: Batch) -> Copies:
        """Copies of the batch's first frames, as many as may be looked at."""
        count = self._budget.take(batch.count, time.monotonic())
        if not count:
            return NOTHING
        return [(_bytes(batch, index), int(batch.interface[index])) for index in range(count)]

    def after(self, batch: Batch, copies: Copies) -> None:
        """Pairs them with what became of the frames; while those are still in the batch's memory."""
        if not copies:
            return
        now_ns, moment = time.time_ns(), self._moment()
        for index, (came, came_by) in enumerate(copies):
            verdict, target = Verdict(int(batch.verdict[index])), int(batch.target[index])
            names = self._names.of(moment, Heading.read(came), target)
            left, left_by = None, 0
            if verdict.kind == "send":
                left, left_by = _bytes(batch, index), int(batch.interface[index]) or came_by
            seen = Seen(now_ns, came, verdict, *names, came_by, left, left_by)
            for watcher in self._watchers:
                watcher.offer(seen)

    async def watch(self, filter: str = "") -> AsyncIterator[dict[str, Any]]:
        """A stream: first what is watched, then matches as they come, and what was not looked at meanwhile."""
        watcher = Watcher(watching.parse(filter, self._moment()))
        self._watchers.add(watcher)
        self._switch(self)
        skipped = self._budget.skipped
        try:
            yield {"version": 1, "program": "mux", "interface": self._interface, "in_kernel": self._in_kernel}
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

    def _describe(self, seen: Seen) -> dict[str, Any]:
        return {
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
