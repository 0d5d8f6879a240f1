"""Backup of a store as text, and its restoration into an empty store of either kind.

The first line is a JSON object with the format, and each further line one entry. Leased entries belong to running
managers and are left out. A restored store gets a higher generation, so its epochs are above all that nodes have seen.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator

from lbmux.errors import LbmuxError
from lbmux.manager.store.election import ELECTION, GENERATION
from lbmux.manager.store.store import Store, Write

FORMAT = 1
MOST_WRITES, MOST_BYTES = 100, 1 << 20
"""Limits of one commit: etcd takes 128 operations and 1.5 MiB."""
POOL = "pool/"


class BackupError(LbmuxError):
    """A backup that cannot be made or restored."""

    reason: str

    def __str__(self) -> str:
        return self.reason


async def back_up(store: Store) -> bytes:
    """Return all entries as they were at one moment."""
    contents = await store.read("")
    lines = [json.dumps({"lbmux_backup": FORMAT, "entries": len(contents.entries) - (ELECTION in contents.entries)})]
    lines += [
        json.dumps([entry.key, b64encode(entry.value).decode()])
        for entry in contents.entries.values() if entry.key != ELECTION
    ]  # fmt: skip
    return "\n".join(lines).encode() + b"\n"


async def restore(store: Store, backup: bytes, now: float) -> int:
    """Write a backup into an empty store and return the number of entries; raise BackupError.

    Without a pool's id a store is not usable, so it comes last: a restoration that was interrupted is noticed.
    """
    entries = dict(_parsed(backup))
    if (await store.read("")).entries:
        raise BackupError("the store is not empty: restore into a new one")
    generation = max(int(entries.get(GENERATION, b"0")) + 1, int(now))
    last = {key: value for key, value in entries.items() if key.startswith(POOL)}
    last[GENERATION] = b"%d" % generation
    others = {key: value for key, value in entries.items() if key not in last}
    for writes in _commits([Write(key, value) for key, value in others.items()]):
        await store.commit((), writes)
    await store.commit((), [Write(key, value) for key, value in last.items()])
    return len(entries)


def _parsed(backup: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        head, *lines = backup.decode().splitlines()
        about = json.loads(head)
        if about["lbmux_backup"] != FORMAT:
            raise BackupError(f"the backup has format {about['lbmux_backup']}; this version reads {FORMAT}")
        if len(lines) != about["entries"]:
            raise BackupError(f"the backup is incomplete: {len(lines)} of {about['entries']} entries")
        for line in lines:
            key, value = json.loads(line)
            yield str(key), b64decode(value, validate=True)
    except (ValueError, KeyError, TypeError) as error:
        raise BackupError(f"not a backup of lbmux: {error}") from error


def _commits(writes: list[Write]) -> Iterator[list[Write]]:
    commit: list[Write] = []
    size = 0
    for write in writes:
        length = len(write.value or b"")
        if commit and (len(commit) == MOST_WRITES or size + length > MOST_BYTES):
            yield commit
            commit, size = [], 0
        commit.append(write)
        size += length
    if commit:
        yield commit
