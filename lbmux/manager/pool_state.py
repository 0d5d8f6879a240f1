"""The pool's desired state in the store: the current revision's file, and the overrides.

Every manager follows it, and sends it to its nodes. A file and its revision are stored in one commit, so a state never
mixes two of them.
"""

import asyncio
import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lbmux.config.known_services import parse_known
from lbmux.config.models import Config
from lbmux.manager.documents import Canary, StoredOverride, StoredOverrides
from lbmux.manager.guard_rails import Wanted
from lbmux.manager.revisions import UnknownRevisionError
from lbmux.manager.store.store import Batch, CompactedError, Contents, Entry, Store
from lbmux.manager.stored_overrides import as_overrides

STATE = "state/"
HEAD, OVERRIDES, EPOCH, CANARY = "state/head", "state/overrides", "state/epoch", "state/canary"
FILES, REVISIONS, EVENTS = "files/", "revisions/", "events/"
POOL_ID = "pool/id"


@dataclass(frozen=True)
class Base:
    """The state of all nodes but the canary while a revision soaks."""

    revision: int
    text: bytes
    config: Config
    stored: StoredOverrides

    @cached_property
    def wanted(self) -> Wanted:
        return Wanted(self.config, as_overrides(self.stored.overrides))


@dataclass(frozen=True)
class PoolState:
    """``at``: the store's revision; ``head_at`` and ``overrides_at``: when they were last modified there, or 0."""

    at: int = 0
    revision: int = 0
    head_at: int = 0
    text: bytes = b""
    config: Config | None = None
    stored: StoredOverrides = field(default_factory=StoredOverrides)
    overrides_at: int = 0
    epoch: int = 0
    """The epoch of the last primary that was elected."""
    canary: Canary | None = None
    base: Base | None = None
    """Set while there is a canary."""

    @property
    def overrides(self) -> tuple[StoredOverride, ...]:
        return self.stored.overrides

    @cached_property
    def wanted(self) -> Wanted:
        return Wanted(self.config, as_overrides(self.overrides))


def numbered(prefix: str, number: int) -> str:
    """Return the key of a numbered entry; keys are in the order of the numbers."""
    return f"{prefix}{number:012}"


async def load_state(store: Store, known: PoolState | None = None) -> PoolState:
    """Read the state; the file is read only if it is not the one of ``known``."""
    return await _state_of(store, await store.read(STATE), known or PoolState())


async def _state_of(store: Store, contents: Contents, known: PoolState) -> PoolState:
    head, overrides, epoch, soaking = (contents.entries.get(key) for key in (HEAD, OVERRIDES, EPOCH, CANARY))
    revision = int(head.value) if head else 0
    text, config = known.text, known.config
    if revision != known.revision or config is None:
        text = await read_file(store, revision) if revision else b""
        config = await asyncio.to_thread(parse_known, text, Path(f"revision {revision}")) if revision else None
    stored = StoredOverrides.model_validate_json(overrides.value) if overrides else StoredOverrides()
    canary = Canary.model_validate_json(soaking.value) if soaking else None
    return PoolState(
        at=contents.revision, revision=revision, head_at=head.modified if head else 0, text=text, config=config,
        stored=stored, overrides_at=overrides.modified if overrides else 0, epoch=int(epoch.value) if epoch else 0,
        canary=canary, base=await _base(store, canary, stored, known) if canary else None,
    )  # fmt: skip


async def _base(store: Store, canary: Canary, stored: StoredOverrides, known: PoolState) -> Base:
    """Return the state of all nodes but the canary; its file is read only if ``known`` does not have it."""
    match = next((one for one in (known, known.base) if one is not None and one.revision == canary.base), None)
    if match is not None and match.config is not None:
        return base_of(canary, match.text, match.config, stored)
    text = await read_file(store, canary.base)
    return base_of(canary, text, await asyncio.to_thread(parse_known, text, Path(f"revision {canary.base}")), stored)


def base_of(canary: Canary, text: bytes, config: Config, stored: StoredOverrides) -> Base:
    """Return the state of all nodes but a canary, with the overrides that the canary's revision makes obsolete."""
    keys = {(one.service, one.backend) for one in stored.overrides}
    more = tuple(one for one in canary.dropped if (one.service, one.backend) not in keys)
    return Base(canary.base, text, config, stored.model_copy(update={"overrides": (*stored.overrides, *more)}))


async def follow_state(store: Store, state: PoolState) -> AsyncGenerator[PoolState]:
    """Yield the state again after each change; if files change faster than they are read, only the latest one."""
    contents: Contents | None = None
    while True:
        try:
            async with aclosing(store.watch(STATE, state.at)) as batches:
                async for batch in batches:
                    if batch.revision > state.at:
                        if contents is None or not batch.changes.keys() <= {OVERRIDES, EPOCH}:
                            contents = await store.read(STATE)
                        else:
                            contents = _changed(contents, batch)
                        state = await _state_of(store, contents, state)
                        yield state
        except CompactedError:
            contents = await store.read(STATE)
            state = await _state_of(store, contents, state)
            yield state


def _changed(contents: Contents, batch: Batch) -> Contents:
    """Return the contents after a batch."""
    entries = dict(contents.entries)
    for key, value in batch.changes.items():
        before = entries.pop(key, None)
        if value is not None:
            entries[key] = Entry(key, value, before.created if before else batch.revision, batch.revision)
    return Contents(batch.revision, entries)


async def read_file(store: Store, revision: int) -> bytes:
    """Return a revision's file; raise UnknownRevisionError."""
    entry = await store.get(numbered(FILES, revision))
    if entry is None:
        raise UnknownRevisionError(revision)
    return await asyncio.to_thread(zlib.decompress, entry.value)


def packed(text: bytes) -> bytes:
    """Return a file as it is stored."""
    return zlib.compress(text)
