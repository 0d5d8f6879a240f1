"""The pool's own log on the page."""

from pathlib import Path

from lbmux.manager.pool import Pool
from lbmux.manager.proposals import Proposal
from lbmux.manager.store.store import Store, UnavailableError
from lbmux.tools.web.pool_events import PoolEvents
from tests.manager.test_pool import ALICE, file, run


def test_events_are_read_once_and_in_order(tmp_path: Path) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        events = PoolEvents(store)
        assert await events.since(0.0) == []
        await pool.apply(Proposal(file(1), message="first"), ALICE)
        (first,) = await events.since(0.0)
        assert (first["level"], first["mux"]) == ("info", "manager")
        assert first["text"] == "apply by alice: first: service web: added"
        await pool.record("conflict", ALICE, "web/b1: drain")
        events_read = await events.since(0.0)
        assert [line["level"] for line in events_read] == ["info", "warning"]
        assert await events.since(events_read[-1]["time"]) == []
        assert await PoolEvents(store).since(0.0) == events_read  # a page that is opened later

    run(tmp_path, scenario)


def test_without_the_store_the_known_ones_stay(tmp_path: Path) -> None:
    async def scenario(store: Store, pool: Pool) -> None:
        await pool.apply(Proposal(file(1)), ALICE)
        events = PoolEvents(store)
        known = await events.since(0.0)

        async def silent(key: str) -> None:
            raise UnavailableError("store", "silent")

        store.get = silent  # type: ignore[method-assign]
        assert await events.since(0.0) == known != []

    run(tmp_path, scenario)
