"""Trace client: a filter, and the matching events that wait to be sent to it."""

import asyncio
from dataclasses import dataclass, field

from lbmux.tracing.event_filter import Test
from lbmux.tracing.prefilter_builder import Prefilter
from lbmux.tracing.trace_event import TraceEvent

MOST_WAITING = 1000
"""Maximum number of matches that wait for a slow client."""


@dataclass(eq=False)
class TraceClient:
    """One client: its filter ``test``, and its pending ``matches``; ``lost`` counts matches beyond MOST_WAITING."""

    test: Test
    prefilter: Prefilter
    matches: list[TraceEvent] = field(default_factory=list)
    matched: asyncio.Event = field(default_factory=asyncio.Event)
    lost: int = 0

    def offer(self, event: TraceEvent) -> None:
        """Keep an event that matches."""
        if not self.test(event):
            return
        if len(self.matches) >= MOST_WAITING:
            self.lost += 1
            return
        self.matches.append(event)
        self.matched.set()

    def take(self) -> tuple[list[TraceEvent], int]:
        """Return the matches since the last call, and how many were lost."""
        (events, self.matches), (lost, self.lost) = (self.matches, []), (self.lost, 0)
        self.matched.clear()
        return events, lost
