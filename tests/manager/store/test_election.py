"""Elections of a primary, on both stores: one at a time, with growing epochs, and a guard for its writes."""

import asyncio
import itertools
from pathlib import Path

import pytest

from lbmux.manager.store import election
from lbmux.manager.store.election import GENERATION, TERM_BITS, campaign, epoch_now, hold, resign
from lbmux.manager.store.open_store import open_store
from lbmux.manager.store.store import ConflictError, Store, Write
from tests.manager.etcd_server import Etcd

WAIT_S = 10
roots = itertools.count()


def sqlite(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def in_etcd(etcd: Etcd) -> Store:
    return open_store(f"etcd://{etcd.endpoint}/election{next(roots)}", etcd.tls)


async def succeeding(store: Store) -> tuple[int, int]:
    """The epochs of two primaries, the second of which waits for the first to resign."""
    async with asyncio.timeout(WAIT_S), store:
        assert await epoch_now(store) is None
        first = await campaign(store, b"m1")
        assert await epoch_now(store) == first.epoch
        waiting = asyncio.create_task(campaign(store, b"m2"))
        holding = asyncio.create_task(hold(store, first))
        await store.commit([first.guard], [Write("a", b"by m1")])
        await resign(store, first)
        second = await waiting
        await holding
        with pytest.raises(ConflictError):  # the first has been replaced
            await store.commit([first.guard], [Write("a", b"by m1, late")])
        await store.commit([second.guard], [Write("a", b"by m2")])
        await resign(store, second)
        return first.epoch, second.epoch


def test_the_next_primary_of_a_cluster_has_a_higher_epoch(etcd: Etcd) -> None:
    first, second = asyncio.run(succeeding(in_etcd(etcd)))
    assert 0 < first < second < 1 << TERM_BITS


def test_a_process_with_a_file_keeps_its_epoch_and_the_next_has_a_higher_one(tmp_path: Path) -> None:
    assert asyncio.run(succeeding(sqlite(tmp_path))) == (1, 1)
    assert asyncio.run(succeeding(sqlite(tmp_path))) == (2, 2)


def test_a_restored_store_has_a_higher_epoch(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with sqlite(tmp_path) as store:
            await store.commit([], [Write(GENERATION, b"5")])
            assert (await campaign(store, b"m1")).epoch == (5 << TERM_BITS) + 1

    asyncio.run(scenario())


def test_a_primary_that_was_frozen_finds_its_lease_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(election, "LEASE_S", 0.05)

    async def scenario() -> None:
        async with asyncio.timeout(WAIT_S), sqlite(tmp_path) as store:
            first = await campaign(store, b"m1")
            waiting = asyncio.create_task(campaign(store, b"m2"))
            second = await waiting  # nothing renewed the first lease
            await hold(store, first)
            assert second.guard.modified > first.guard.modified

    asyncio.run(scenario())
