"""The election of a primary: an entry under a lease that the primary keeps.

A primary's writes are guarded by its election entry, so a primary that was replaced cannot write. Its epoch goes with
every message to nodes, which refuse lower ones.
"""

import asyncio
import contextlib
from dataclasses import dataclass

from lbmux.manager.store.store import (
    CompactedError,
    ConflictError,
    Guard,
    LeaseExpiredError,
    Store,
    UnavailableError,
    Write,
)

ELECTION, GENERATION = "election/primary", "pool/generation"
TERM_BITS = 32
"""Bits of an epoch that count primaries; the bits above are the store's generation."""
LEASE_S = 2
"""Time that a silent primary stays primary, in seconds."""
RETRY_S = 0.2


@dataclass(frozen=True)
class Leadership:
    """An election that was won: ``guard`` holds while it lasts."""

    epoch: int
    lease: int
    guard: Guard


async def epoch_now(store: Store) -> int | None:
    """Return the epoch of the current primary; None if there is none."""
    entry = await store.get(ELECTION)
    return None if entry is None else (await _generation(store) << TERM_BITS) + store.term(entry)


async def campaign(store: Store, value: bytes) -> Leadership:
    """Wait until the election is won; ``value`` tells others the primary's address."""
    while True:
        seen = await store.read(ELECTION)
        if not seen.entries and (won := await _try(store, value)) is not None:
            return won
        with contextlib.suppress(CompactedError, TimeoutError):
            async with asyncio.timeout(LEASE_S), contextlib.aclosing(store.watch(ELECTION, seen.revision)) as batches:
                async for batch in batches:
                    if batch.changes[ELECTION] is None:
                        break


async def hold(store: Store, leadership: Leadership) -> None:
    """Keep the lease until it is lost, then return."""
    loop = asyncio.get_running_loop()
    kept = loop.time()
    while loop.time() - kept < LEASE_S:
        attempt = loop.time()
        with contextlib.suppress(UnavailableError, TimeoutError):
            try:
                async with asyncio.timeout_at(kept + LEASE_S):
                    await store.keep(leadership.lease)
            except LeaseExpiredError:
                return
            kept = attempt
        await asyncio.sleep(RETRY_S)


async def resign(store: Store, leadership: Leadership) -> None:
    """Give up the lease at once, so that another manager need not wait until it expires."""
    await store.revoke(leadership.lease)


async def _try(store: Store, value: bytes) -> Leadership | None:
    lease = await store.grant(LEASE_S)
    try:
        revision = await store.commit([Guard(ELECTION, 0)], [Write(ELECTION, value, lease)])
        epoch = await epoch_now(store)
    except (ConflictError, LeaseExpiredError):
        await store.revoke(lease)
        return None
    return None if epoch is None else Leadership(epoch, lease, Guard(ELECTION, revision))


async def _generation(store: Store) -> int:
    entry = await store.get(GENERATION)
    return int(entry.value) if entry is not None else 0
