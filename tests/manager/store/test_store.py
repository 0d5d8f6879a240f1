"""One suite for both stores: what the manager relies on."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from lbmux.manager.store import etcd_store
from lbmux.manager.store.open_store import open_store
from lbmux.manager.store.store import (
    Batch,
    ConflictError,
    Guard,
    LeaseExpiredError,
    Store,
    UnavailableError,
    Write,
)
from tests.manager.etcd_server import Etcd

WAIT_S = 10
Scenario = Callable[[Store], Awaitable[None]]
roots = itertools.count()


@pytest.fixture(params=["sqlite", "etcd"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    """Runs a scenario on an empty store of each kind."""
    if request.param == "sqlite":
        store = open_store(str(tmp_path / "store"))
    else:
        etcd: Etcd = request.getfixturevalue("etcd")
        store = open_store(f"etcd://{etcd.endpoint}/test{next(roots)}", etcd.tls)

    async def running(scenario: Scenario) -> None:
        async with asyncio.timeout(WAIT_S), store:
            await scenario(store)

    return lambda scenario: asyncio.run(running(scenario))


async def following(store: Store, prefix: str, after: int, count: int) -> list[Batch]:
    """The next batches of a watch."""
    followed: list[Batch] = []
    batches = store.watch(prefix, after)
    async for batch in batches:
        followed.append(batch)
        if len(followed) == count:
            break
    await batches.aclose()
    return followed


def test_what_was_written_is_read(run: Callable[[Scenario], None]) -> None:
    async def scenario(store: Store) -> None:
        assert await store.get("a/1") is None and dict((await store.read("")).entries) == {}
        first = await store.commit([], [Write("a/2", b"two"), Write("a/1", b"\x00\xff"), Write("ab", b"")])
        second = await store.commit([], [Write("a/2", b"zwei")])
        contents = await store.read("a/")
        assert list(contents.entries) == ["a/1", "a/2"] and contents.revision >= second > first
        leased = contents.entries["a/2"]
        assert (leased.value, leased.created, leased.modified) == (b"zwei", first, second)
        assert contents.entries["a/1"].value == b"\x00\xff" and (entry := await store.get("ab")) and entry.value == b""

    run(scenario)


def test_a_commit_is_made_whole_or_not_at_all(run: Callable[[Scenario], None]) -> None:
    async def scenario(store: Store) -> None:
        revision = await store.commit([Guard("a", 0)], [Write("a", b"1")])
        for guards in ([Guard("a", 0)], [Guard("a", revision), Guard("b", revision)]):
            with pytest.raises(ConflictError) as refused:
                await store.commit(guards, [Write("b", b"1"), Write("c", b"1")])
            assert refused.value.keys == (guards[-1].key,)
        assert list((await store.read("")).entries) == ["a"]
        await store.commit([Guard("a", revision), Guard("b", 0)], [Write("a", None), Write("b", b"2")])
        assert list((await store.read("")).entries) == ["b"]

    run(scenario)


def test_one_of_several_writers_wins(run: Callable[[Scenario], None]) -> None:
    async def scenario(store: Store) -> None:
        tries = [store.commit([Guard("a", 0)], [Write("a", b"%d" % number)]) for number in range(10)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(result, int) for result in results) == 1
        assert sum(isinstance(result, ConflictError) for result in results) == 9

    run(scenario)


def test_a_watch_has_no_gap(run: Callable[[Scenario], None]) -> None:
    async def scenario(store: Store) -> None:
        before = (await store.read("a/")).revision
        await store.commit([], [Write("a/1", b"1"), Write("a/2", b"2"), Write("b", b"")])
        late = asyncio.create_task(following(store, "a/", before, 3))
        await store.commit([], [Write("b", b"not watched")])
        second = await store.commit([], [Write("a/1", None), Write("a/3", b"3")])
        third = await store.commit([], [Write("a/1", b"again")])
        batches = await late
        assert [dict(batch.changes) for batch in batches] == [
            {"a/1": b"1", "a/2": b"2"}, {"a/1": None, "a/3": b"3"}, {"a/1": b"again"},
        ]  # fmt: skip
        assert [batch.revision for batch in batches[1:]] == [second, third]
        assert await following(store, "a/", second, 1) == batches[2:]

    run(scenario)


def test_entries_go_with_their_lease(run: Callable[[Scenario], None]) -> None:
    async def scenario(store: Store) -> None:
        lease = await store.grant(2)
        revision = await store.commit([], [Write("a", b"1", lease), Write("b", b"1", lease), Write("c", b"1")])
        await store.commit([], [Write("b", b"2")])  # no longer tied to the lease
        await store.keep(lease)
        await store.revoke(lease)
        (gone,) = [one for one in await following(store, "a", revision, 1)]
        assert gone.changes == {"a": None} and list((await store.read("")).entries) == ["b", "c"]
        await store.revoke(lease)
        with pytest.raises(LeaseExpiredError):
            await store.keep(lease)
        with pytest.raises(LeaseExpiredError):
            await store.commit([], [Write("d", b"1", lease)])
        assert await store.get("d") is None

    run(scenario)


@pytest.mark.slow
def test_a_lease_that_is_not_kept_ends(run: Callable[[Scenario], None]) -> None:
    async def scenario(store: Store) -> None:
        lease = await store.grant(1)
        revision = await store.commit([], [Write("a", b"1", lease)])
        assert [dict(one.changes) for one in await following(store, "a", revision, 1)] == [{"a": None}]
        with pytest.raises(LeaseExpiredError):
            await store.keep(lease)

    run(scenario)


def test_a_store_that_does_not_answer(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etcd_store, "REQUEST_S", 0.3)

    async def scenario() -> None:
        async with asyncio.timeout(WAIT_S), open_store("etcd://127.0.0.1:1", etcd.tls) as store:
            with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
                await store.get("a")

    asyncio.run(scenario())
