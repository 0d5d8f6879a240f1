"""The pool's own log for the page, beside the lines of its muxes: revisions, overrides, elections, their authors."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any

from lbmux.manager.documents import Event
from lbmux.manager.pool_state import EVENTS, numbered
from lbmux.manager.records import list_events
from lbmux.manager.store.store import Store, UnavailableError

MOST_EVENTS = 100
WARNINGS = ("refused", "conflict", "black_hole")


class PoolEvents:
    """The last events in the store; each is read once."""

    def __init__(self, store: Store) -> None:
        self._store, self._lines = store, deque[dict[str, Any]](maxlen=MOST_EVENTS)
        self._next = 0
        self._reading = asyncio.Lock()

    async def since(self, time: float) -> list[dict[str, Any]]:
        """Return the lines after ``time``, oldest first; without the newest ones while the store does not answer."""
        async with self._reading:
            with suppress(UnavailableError):
                await self._read()
        return [line for line in self._lines if line["time"] > time]

    async def _read(self) -> None:
        if not self._next:
            for event in reversed(await list_events(self._store, MOST_EVENTS)):
                self._add(event)
        while (entry := await self._store.get(numbered(EVENTS, self._next or 1))) is not None:
            self._add(Event.model_validate_json(entry.value))

    def _add(self, event: Event) -> None:
        level = "warning" if event.kind in WARNINGS else "info"
        text = f"{event.kind} by {event.by}: {event.text}"
        self._lines.append({"time": event.time, "level": level, "text": text, "mux": "manager"})
        self._next = event.number + 1
