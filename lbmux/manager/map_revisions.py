"""Maps of `lbmux steer` as revisions in the store, beside those of the configuration.

A map is proposed with the number of the one that it was computed from, as files are (`lbmux apply`): if another is
current by then, nothing changes. It includes the shares of data centres, so both are in force together.
"""

import asyncio
import zlib
from dataclasses import dataclass
from pathlib import Path

from lbmux.config.field_types import Model
from lbmux.errors import LbmuxError
from lbmux.manager.pool import Pool
from lbmux.manager.pool_state import numbered, packed
from lbmux.manager.proposals import Caller
from lbmux.manager.revisions import digest
from lbmux.manager.store.store import ConflictError, Entry, Guard, Store, Write
from lbmux.steering.steering_map import SteeringMap, from_json

MAPS, MAP_FILES, MAP_HEAD = "maps/", "map-files/", "map-head"
KEPT_MAPS = 200


class MapRevision(Model):
    """One version of the pool's map, and what it changed when it was computed. Times are seconds since 1970."""

    number: int
    """Counts from 1."""
    author: str
    """The name of the token that applied it."""
    time: float
    message: str
    digest: str
    """The first 16 hexadecimal digits of the map's SHA-256."""
    groups: int
    """Client groups in it."""
    groups_changed: int
    """Those whose answer differs from the revision before."""
    users: float
    moved: float
    """Users whose PoP changes."""
    rtt_ms: float
    """The users' mean round-trip time by this map."""
    rtt_ms_before: float | None
    """The same by the map before; null: there was none."""
    restores: int | None = None
    """The map that `lbmux steer rollback` restored: `lbmux steer run` keeps it while all its PoPs are healthy."""


class StaleMapError(LbmuxError):
    """The map was computed from a revision that is no longer current."""

    base: int
    current: int

    def __str__(self) -> str:
        return f"the map was computed from map {self.base}, but map {self.current} is current: compute it again"


class UnknownMapError(LbmuxError):
    """There is no map of this number, or it is no longer kept."""

    number: int

    def __str__(self) -> str:
        if not self.number:
            return "there is no map yet; `lbmux steer apply` makes the first"
        return f"map {self.number} does not exist; `lbmux show maps` lists all maps"


@dataclass(frozen=True)
class MapProposal:
    """``text``: the map in JSON; ``base``: the revision that it was computed from, 0 for the first."""

    text: str
    base: int
    users: float
    moved: float
    rtt_ms: float
    rtt_ms_before: float | None = None
    message: str = ""
    dry_run: bool = False
    restores: int | None = None


async def read_map(store: Store, number: int | None = None) -> tuple[MapRevision, str]:
    """Return a revision, by default the current one, and its map in JSON; raise UnknownMapError."""
    if number is None:
        number = _number(await store.get(MAP_HEAD))
    record, file = await store.get(numbered(MAPS, number)), await store.get(numbered(MAP_FILES, number))
    if record is None or file is None:
        raise UnknownMapError(number)
    text = await asyncio.to_thread(zlib.decompress, file.value)
    return MapRevision.model_validate_json(record.value), text.decode()


async def list_maps(store: Store) -> list[MapRevision]:
    """Return the revisions that are kept, newest first."""
    return [MapRevision.model_validate_json(one.value) for one in (await store.read(MAPS)).entries.values()][::-1]


async def apply_map(pool: Pool, store: Store, proposal: MapProposal, caller: Caller, now: float) -> MapRevision:
    """Make a map the current revision; return it, also for a dry run, which changes nothing.

    Raise ConfigError for something else than a map, StaleMapError, or TooLargeError.
    """
    wanted = await asyncio.to_thread(from_json, proposal.text, Path("map"))
    head = await store.get(MAP_HEAD)
    current = _number(head)
    if proposal.base != current:
        raise StaleMapError(proposal.base, current)
    before = from_json((await read_map(store, current))[1], Path(f"map {current}")) if current else None
    revision = MapRevision(
        number=current + 1, author=caller.name, time=now, message=proposal.message,
        digest=digest(proposal.text.encode()), groups=len(wanted.groups), groups_changed=_changed(before, wanted),
        users=proposal.users, moved=proposal.moved, rtt_ms=proposal.rtt_ms, rtt_ms_before=proposal.rtt_ms_before,
        restores=proposal.restores,
    )  # fmt: skip
    if not proposal.dry_run:
        guard = Guard(MAP_HEAD, head.modified if head is not None else 0)
        try:
            await pool.record("map", caller, summary(revision), *_writes(revision, proposal.text), guards=[guard])
        except ConflictError as error:
            raise StaleMapError(proposal.base, _number(await store.get(MAP_HEAD))) from error
    return revision


def summary(revision: MapRevision) -> str:
    """Return what a revision changes, for people."""
    before = "" if revision.rtt_ms_before is None else f" ({revision.rtt_ms_before:.1f} ms before)"
    restored = "" if revision.restores is None else f" (map {revision.restores} again)"
    return (
        f"map {revision.number}{restored}: {revision.moved:.0f} of {revision.users:.0f} users move, mean round trip "
        f"{revision.rtt_ms:.1f} ms{before}"
    )


def _writes(revision: MapRevision, text: str) -> list[Write]:
    number, old = revision.number, revision.number - KEPT_MAPS
    return [
        Write(MAP_HEAD, b"%d" % number),
        Write(numbered(MAP_FILES, number), packed(text.encode())),
        Write(numbered(MAPS, number), revision.model_dump_json().encode()),
        *(Write(numbered(prefix, old), None) for prefix in (MAP_FILES, MAPS) if old > 0),
    ]


def _number(head: Entry | None) -> int:
    return 0 if head is None else int(head.value)


def _changed(before: SteeringMap | None, after: SteeringMap) -> int:
    return sum(before is None or before.groups.get(prefix) != weights for prefix, weights in after.groups.items())
