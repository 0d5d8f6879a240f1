"""What is particular to the store in a file: one process, and a count of its starts."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from lbmux.errors import SetupError
from lbmux.manager.store import sqlite_store
from lbmux.manager.store.sqlite_store import SqliteStore
from lbmux.manager.store.store import CompactedError, Entry, Write

ELECTION = Entry("election", b"", 1, 1)


def test_each_start_has_a_higher_term(tmp_path: Path) -> None:
    async def start() -> int:
        async with SqliteStore(tmp_path) as store:
            return store.term(ELECTION)

    assert [asyncio.run(start()) for _ in range(3)] == [1, 2, 3]


def test_what_was_leased_does_not_outlive_the_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with SqliteStore(tmp_path) as store:
            await store.commit([], [Write("a", b"", await store.grant(60)), Write("b", b"")])
        async with SqliteStore(tmp_path) as store:
            assert list((await store.read("")).entries) == ["b"]

    asyncio.run(scenario())


class SlowWrites(list[Write]):
    """Writes that the store's thread reads only when ``go`` is set."""

    def __init__(self, writes: Iterable[Write]) -> None:
        super().__init__(writes)
        self.begun, self.go = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[Write]:
        if threading.current_thread() is not threading.main_thread():
            self.begun.set()
            self.go.wait()
        return super().__iter__()


def test_a_commit_whose_caller_was_cancelled_ends_before_the_database_is_closed(tmp_path: Path) -> None:
    async def scenario() -> None:
        writes = SlowWrites([Write("a", b"")])
        async with SqliteStore(tmp_path) as store:
            committing = asyncio.create_task(store.commit([], writes))
            await asyncio.to_thread(writes.begun.wait)
            committing.cancel()
            threading.Timer(0.1, writes.go.set).start()  # while the store closes, which keeps this loop
        async with SqliteStore(tmp_path) as store:
            assert list((await store.read("")).entries) == ["a"]

    asyncio.run(scenario())


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with SqliteStore(tmp_path):
            with pytest.raises(SetupError, match="another manager uses it"):
                await SqliteStore(tmp_path).__aenter__()

    asyncio.run(scenario())


def test_a_file_that_is_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "manager.db").write_text("not a database, but longer than the header of one" * 100)
    with pytest.raises(SetupError, match="not a database"):
        asyncio.run(SqliteStore(tmp_path).__aenter__())
    (tmp_path / "manager.db").unlink()
    asyncio.run(opened(tmp_path))  # the lock was released


async def opened(directory: Path) -> None:
    async with SqliteStore(directory):
        return


def test_a_watch_that_is_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "KEPT_BATCHES", 20)

    async def scenario() -> None:
        async with SqliteStore(tmp_path) as store:
            after = (await store.read("")).revision
            for _ in range(21):
                last = await store.commit([], [Write("a", b"")])
            with pytest.raises(CompactedError):
                await anext(store.watch("a", after))
            assert (await anext(store.watch("a", last - 18))).revision == last - 17

    asyncio.run(scenario())


def test_a_watch_from_before_the_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with SqliteStore(tmp_path) as store:
            before = (await store.read("")).revision
        async with SqliteStore(tmp_path) as store:
            with pytest.raises(CompactedError, match=f"revision {before}"):
                await anext(store.watch("a", before))

    asyncio.run(scenario())


WRITER = """
import asyncio, sys
from pathlib import Path
from lbmux.manager.store.sqlite_store import SqliteStore
from lbmux.manager.store.store import Write

async def run():
    async with SqliteStore(Path(sys.argv[1])) as store:
        for number in range(10**6):
            await store.commit([], [Write(f"a/{number:09}", b"x" * 1000)])
            print(number, flush=True)

asyncio.run(run())
"""


def test_nothing_acknowledged_is_lost_by_a_kill(tmp_path: Path) -> None:
    async def numbers() -> list[int]:
        async with SqliteStore(tmp_path) as store:
            return [int(key.removeprefix("a/")) for key in (await store.read("a/")).entries]

    for acknowledged in (3, 40):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(acknowledged):
                last = int(writer.stdout.readline())
            writer.kill()
        stored = asyncio.run(numbers())
        assert stored == [*range(len(stored))] and len(stored) > last
