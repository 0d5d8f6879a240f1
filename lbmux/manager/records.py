"""The revisions and events that the store keeps: how to write them, drop the oldest ones, and list them."""

from typing import Literal

from lbmux.manager.documents import Event, Revision
from lbmux.manager.pool_state import EVENTS, FILES, HEAD, REVISIONS, numbered, packed
from lbmux.manager.store.store import Store, Write

KEPT_REVISIONS, KEPT_EVENTS = 1000, 5000
EventKind = Literal[
    "apply", "rollback", "override", "expiry", "token", "join", "refused", "primary", "canary", "conflict", "map",
    "black_hole",
]  # fmt: skip


def revision_writes(revision: Revision, text: bytes) -> list[Write]:
    """Return the writes that make a revision and its file the current one. They drop the oldest revision."""
    number = revision.number
    old = [numbered(prefix, number - KEPT_REVISIONS) for prefix in (FILES, REVISIONS) if number > KEPT_REVISIONS]
    return [
        Write(HEAD, b"%d" % number),
        Write(numbered(FILES, number), packed(text)),
        Write(numbered(REVISIONS, number), revision.model_dump_json().encode()),
        *(Write(key, None) for key in old),
    ]


def event_writes(event: Event) -> list[Write]:
    """Return the writes that add an event. They drop the oldest one."""
    oldest = event.number - KEPT_EVENTS
    old = [Write(numbered(EVENTS, oldest), None)] if oldest > 0 else []
    return [Write(numbered(EVENTS, event.number), event.model_dump_json().encode()), *old]


async def next_event_number(store: Store) -> int:
    """Return the number of the next event."""
    events = (await store.read(EVENTS)).entries
    return 1 + max((int(key.removeprefix(EVENTS)) for key in events), default=0)


async def list_revisions(store: Store) -> list[Revision]:
    """Return the revisions that are kept, newest first."""
    return [Revision.model_validate_json(one.value) for one in (await store.read(REVISIONS)).entries.values()][::-1]


async def list_events(store: Store, limit: int) -> list[Event]:
    """Return the last events, newest first."""
    entries = [*(await store.read(EVENTS)).entries.values()][-limit:]
    return [Event.model_validate_json(one.value) for one in entries][::-1]
