"""A manager follows the desired state in the store."""

import asyncio
from pathlib import Path

import pytest

from lbmux.backends.override_commands import set_weight
from lbmux.manager.pool import Pool
from lbmux.manager.pool_state import PoolState, follow_state, load_state, read_file
from lbmux.manager.proposals import Proposal
from lbmux.manager.revisions import UnknownRevisionError
from lbmux.manager.store import sqlite_store
from lbmux.manager.store.open_store import open_store
from lbmux.manager.store.store import Store, Write
from tests.manager.test_pool import ALICE, file, run


def test_an_empty_store(tmp_path: Path) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        state = await load_state(store)
        assert (state.revision, state.text, state.config, state.overrides) == (0, b"", None, ())
        with pytest.raises(UnknownRevisionError):
            await read_file(store, 1)

    run(tmp_path, scenario)


def test_each_change_is_followed(tmp_path: Path) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        states = follow_state(store, await load_state(store))
        await pool.apply(Proposal(file(1)), ALICE)
        first = await anext(states)
        assert first.revision == 1 and first.config is not None and first.text == file(1)
        await pool.override(set_weight(3, "b1", None, 0.0), ALICE)
        second = await anext(states)
        assert second.config is first.config and second.overrides[0].weight == 3  # the file was not read again
        await states.aclose()

    run(tmp_path, scenario)


def test_a_change_of_overrides_is_followed_without_reading_the_store_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    async def scenario(store: Store, pool: Pool) -> None:
        await pool.apply(Proposal(file(1)), ALICE)
        states = follow_state(store, PoolState())
        assert (await anext(states)).revision == 1
        monkeypatch.setattr(store, "read", None)
        at = await store.commit([], [Write("state/overrides", b'{"version": 9}'), Write("state/epoch", b"7")])
        state = await anext(states)
        assert (state.revision, state.stored.version, state.epoch, state.at) == (1, 9, 7, at)
        assert state.overrides_at == at and state.head_at < at
        await store.commit([], [Write("state/overrides", None)])
        state = await anext(states)
        assert (state.stored.version, state.overrides_at, state.epoch) == (0, 0, 7)
        await states.aclose()

    run(tmp_path, scenario)


def test_a_manager_that_is_far_behind_reads_the_state_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(sqlite_store, "KEPT_BATCHES", 10)

    async def scenario() -> None:
        async with open_store(str(tmp_path)) as store:
            for _ in range(20):
                await store.commit([], [Write("state/overrides", b'{"version": 9}')])
            states = follow_state(store, PoolState())
            assert (await anext(states)).stored.version == 9
            await states.aclose()

    asyncio.run(scenario())
