"""The store in an SQLite database (WAL) that one process uses: for a lab or a small pool.

SQL runs in one thread, so commits have one order. Leases and recent changes are in memory only: leases would not
survive their process anyway, and leased entries are deleted at the start.
"""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from lbmux.errors import SetupError
from lbmux.manager.store.store import (
    Batch,
    CompactedError,
    ConflictError,
    Contents,
    Entry,
    Guard,
    LeaseExpiredError,
    Store,
    UnavailableError,
    Write,
)

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, created INTEGER NOT NULL, modified INTEGER NOT NULL,
    leased INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO numbers VALUES ('revision', 0), ('starts', 0);
"""
KEPT_BATCHES = 10_000
"""Number of changes that a watch may lag behind."""
Result = TypeVar("Result")


class SqliteStore(Store):
    """``directory`` holds the database; it is created if it does not exist."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._starts = self._compacted_at = 0
        self._batches: list[Batch] = []
        self._published = asyncio.Event()
        self._leases: dict[int, tuple[asyncio.TimerHandle, float, set[str]]] = {}
        self._last_lease = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, stack: contextlib.AsyncExitStack) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            stack.callback(os.close, _lock(self._directory / "lock"))
            self._thread = stack.enter_context(ThreadPoolExecutor(1, "store"))
            self._database = await self._loop.run_in_executor(self._thread, _open, self._directory / "manager.db")
        except (OSError, sqlite3.Error) as error:
            raise SetupError(f"store {self._directory}", str(error), "give another directory with --store") from error
        stack.callback(lambda: self._thread.submit(self._database.close).result())  # after what still runs
        self._starts, self._compacted_at = await self._run(
            lambda: (_number(self._database, "starts"), self._revision())
        )
        stack.callback(self._cancel_timers)

    async def read(self, prefix: str) -> Contents:
        def contents() -> Contents:
            rows = self._database.execute(
                "SELECT key, value, created, modified FROM entries WHERE key >= ? AND substr(key, 1, ?) = ? "
                "ORDER BY key",
                (prefix, len(prefix), prefix),
            )
            return Contents(self._revision(), {row[0]: Entry(*row) for row in rows})

        return await self._run(contents)

    async def get(self, key: str) -> Entry | None:
        return await self._run(lambda: self._entry(key))

    async def commit(self, guards: Collection[Guard], writes: Collection[Write]) -> int:
        for write in writes:
            if write.lease is not None and write.lease not in self._leases:
                raise LeaseExpiredError(write.lease)
        revision = await self._run(lambda: self._commit(guards, writes))
        for write in writes:
            for number, (_, _, keys) in self._leases.items():
                (keys.add if number == write.lease else keys.discard)(write.key)
        return revision

    async def watch(self, prefix: str, after: int) -> AsyncGenerator[Batch]:
        while True:
            if after < self._compacted_at:
                raise CompactedError(after)
            published = self._published
            for batch in self._batches[bisect_right(self._batches, after, key=lambda one: one.revision) :]:
                after = batch.revision
                if changes := {key: value for key, value in batch.changes.items() if key.startswith(prefix)}:
                    yield Batch(batch.revision, changes)
            await published.wait()

    async def grant(self, ttl_s: float) -> int:
        self._last_lease += 1
        self._leases[self._last_lease] = self._timer(self._last_lease, ttl_s), ttl_s, set()
        return self._last_lease

    async def keep(self, lease: int) -> None:
        if lease not in self._leases:
            raise LeaseExpiredError(lease)
        timer, ttl_s, keys = self._leases[lease]
        timer.cancel()
        self._leases[lease] = self._timer(lease, ttl_s), ttl_s, keys

    async def revoke(self, lease: int) -> None:
        if lease in self._leases:
            timer, _, keys = self._leases.pop(lease)
            timer.cancel()
            if keys:
                await self.commit((), [Write(key, None) for key in sorted(keys)])

    def term(self, election: Entry) -> int:
        return self._starts

    def _timer(self, lease: int, ttl_s: float) -> asyncio.TimerHandle:
        def expire() -> None:
            task = self._loop.create_task(self.revoke(lease))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return self._loop.call_later(ttl_s, expire)

    def _cancel_timers(self) -> None:
        for timer, _, _ in self._leases.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()

    async def _run(self, work: Callable[[], Result]) -> Result:
        try:
            return await self._loop.run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise UnavailableError(str(self._directory), str(error)) from error

    def _commit(self, guards: Collection[Guard], writes: Collection[Write]) -> int:
        with _transaction(self._database):
            modified = {guard.key: entry.modified if (entry := self._entry(guard.key)) else 0 for guard in guards}
            if failed := tuple(guard.key for guard in guards if modified[guard.key] != guard.modified):
                raise ConflictError(failed)
            revision = self._revision() + 1
            self._database.execute("UPDATE numbers SET value = ? WHERE name = 'revision'", (revision,))
            for write in writes:
                if write.value is None:
                    self._database.execute("DELETE FROM entries WHERE key = ?", (write.key,))
                else:
                    self._database.execute(
                        "INSERT INTO entries VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value, "
                        "modified = excluded.modified, leased = excluded.leased",
                        (write.key, write.value, revision, revision, write.lease is not None),
                    )
        # Notify in this thread: watches see the commit before the caller continues, even if the caller is cancelled.
        self._loop.call_soon_threadsafe(self._publish, Batch(revision, {write.key: write.value for write in writes}))
        return revision

    def _publish(self, batch: Batch) -> None:
        self._batches.append(batch)
        if len(self._batches) > KEPT_BATCHES:
            self._compacted_at = self._batches[KEPT_BATCHES // 10].revision
            del self._batches[: KEPT_BATCHES // 10 + 1]
        self._published.set()
        self._published = asyncio.Event()

    def _entry(self, key: str) -> Entry | None:
        row = self._database.execute(
            "SELECT key, value, created, modified FROM entries WHERE key = ?", (key,)
        ).fetchone()
        return Entry(*row) if row else None

    def _revision(self) -> int:
        return _number(self._database, "revision")


def _lock(path: Path) -> int:
    """Return the descriptor of the lock file; raise OSError if another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise OSError("another manager uses it; several managers need a store in etcd") from None
    return descriptor


def _open(path: Path) -> sqlite3.Connection:
    """Open the database, count the start, and delete what was leased before it."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        path.chmod(0o600)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")  # an acknowledged change survives a power cut
        database.executescript(SCHEMA)
        with _transaction(database):
            database.execute("UPDATE numbers SET value = value + 1 WHERE name IN ('starts', 'revision')")
            database.execute("DELETE FROM entries WHERE leased")
    except BaseException:
        database.close()
        raise
    return database


def _number(database: sqlite3.Connection, name: str) -> int:
    return int(database.execute("SELECT value FROM numbers WHERE name = ?", (name,)).fetchone()[0])


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
