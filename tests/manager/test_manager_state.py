"""Several managers on etcd: one primary at a time, and the end of one that is frozen or killed."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lbmux.errors import SetupError
from lbmux.manager.admission import make_pool
from lbmux.manager.identity import Identity
from lbmux.manager.manager_state import Manager
from lbmux.manager.proposals import NotPrimaryError, Proposal
from lbmux.manager.records import list_events
from lbmux.manager.store import election
from lbmux.manager.store.open_store import open_store
from lbmux.manager.store.store import Store
from tests.manager.etcd_server import Etcd
from tests.manager.test_nodes import Lab, serving, until
from tests.manager.test_pool import ALICE, file

roots = itertools.count()


@asynccontextmanager
async def pair(etcd: Etcd, path: Path) -> AsyncIterator[tuple[Lab, Manager, Manager]]:
    """Two managers, each with a store of its own, of which the first is primary."""
    where, own = f"etcd://{etcd.endpoint}/managers{next(roots)}", Identity(path / "m1")
    stores: list[Store] = [open_store(where, etcd.tls) for _ in range(2)]
    async with asyncio.timeout(30), stores[0], stores[1]:
        _, token = await make_pool(stores[0], own, "localhost", ["127.0.0.1"], time.time())
        lab = Lab(path, [Manager(stores[0], own, "")], token)
        async with serving(lab.managers[0]):
            await until(lambda: lab.managers[0].is_primary)
            lab.managers.append(Manager(stores[1], lab.identity("m2", "manager"), ""))
            async with serving(lab.managers[1]):
                yield lab, *lab.managers


def test_a_frozen_primary_is_replaced_and_refused(
    etcd: Etcd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(election, "LEASE_S", 1)

    async def forever(*given: object) -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with pair(etcd, tmp_path) as (lab, m1, m2):
            node = lab.node("mux1", m2)
            await m1.pool.apply(Proposal(file(1)), ALICE)
            async with node.client.following(node.accept):
                await until(lambda: node.seen == [(1, 0)])
                old = m1.pool
                monkeypatch.setattr(m1.store, "keep", forever)  # nothing renews its lease
                monkeypatch.setattr(m1, "_lead", forever)  # and it is not a candidate again
                await until(lambda: m2.is_primary)
                assert m2.state.epoch > old.state.epoch
                with pytest.raises(NotPrimaryError):
                    await old.apply(Proposal(file(1, 2, 3)), ALICE)
                await m2.pool.apply(Proposal(file(1, 2)), ALICE)
                await until(lambda: node.seen == [(1, 0), (2, 0)])
                held = node.client.held
                assert held is not None and held.epoch == m2.state.epoch
            assert [one.kind for one in await list_events(m2.store, 4)] == ["apply", "primary", "apply", "primary"]

    asyncio.run(scenario())


def test_a_primary_that_stops_hands_over_at_once(etcd: Etcd, tmp_path: Path) -> None:
    async def scenario() -> None:
        where, own = f"etcd://{etcd.endpoint}/managers{next(roots)}", Identity(tmp_path / "m1")
        async with asyncio.timeout(30), open_store(where, etcd.tls) as store:
            await make_pool(store, own, "localhost", [], time.time())
            m1, m2 = Manager(store, own, "https://m1"), Manager(store, own, "https://m2")
            async with m2.running():
                await until(lambda: m2.is_primary)
                async with m1.running():
                    await until(lambda: m1.primary.url == "https://m2")
                    with pytest.raises(NotPrimaryError, match="the primary is https://m2"):
                        assert m1.pool
                assert m2.is_primary  # the other manager's end changes nothing
            started = time.monotonic()
            async with m1.running():
                await until(lambda: m1.is_primary)
            assert time.monotonic() - started < 1.5  # less than the lease

    asyncio.run(scenario())


def test_an_identity_of_another_pool(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(str(tmp_path / "a")) as first, open_store(str(tmp_path / "b")) as second:
            await make_pool(first, Identity(tmp_path / "m1"), "m1", [], time.time())
            await make_pool(second, Identity(tmp_path / "m2"), "m2", [], time.time())
            with pytest.raises(SetupError, match="it is of manager m2 of pool"):
                async with Manager(first, Identity(tmp_path / "m2"), "").running():
                    pass

    asyncio.run(scenario())
