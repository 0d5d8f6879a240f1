"""How often a pool's muxes are asked, and for what."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from lbmux.tools.web import pool_poller
from lbmux.tools.web.pool_poller import PoolPoller
from tests.tools.web.conftest import Served


@pytest.fixture
def polls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the polls of each kind."""
    counts, summary, details = Counter[str](), pool_poller.poll_summary, pool_poller.poll

    def count(kind: str, function: Any) -> Any:
        def counted(*given: Any) -> Any:
            counts[kind] += 1
            return function(*given)

        return counted

    monkeypatch.setattr(pool_poller, "poll_summary", count("summary", summary))
    monkeypatch.setattr(pool_poller, "poll", count("details", details))
    return counts


def test_all_callers_of_an_interval_share_one_poll(muxes: list[Served], polls: Counter[str]) -> None:
    poller = PoolPoller(lambda: [mux.path for mux in muxes], 60.0)

    async def ask() -> None:
        await asyncio.gather(*(poller.poll_summaries() for _ in range(5)), *(poller.poll_details() for _ in range(5)))

    asyncio.run(ask())
    assert polls == {"summary": 2, "details": 2}
    assert [one.name for one in poller.summaries] == ["mux1", "mux2"]
    assert poller.details is not None and poller.services is not None and poller.details_at > 0


def test_each_interval_is_polled_again(muxes: list[Served], polls: Counter[str]) -> None:
    poller = PoolPoller(lambda: [muxes[0].path], 0.0)

    async def ask() -> None:
        for _ in range(3):
            await poller.poll_summaries()

    asyncio.run(ask())
    assert polls == {"summary": 3}


def test_a_large_pool_is_polled_seldom(
    muxes: list[Served], polls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second poll comes soon, since rates need two; the third waits a second for each thousand backends."""
    now = 100.0
    monkeypatch.setattr(pool_poller.time, "monotonic", lambda: now)
    monkeypatch.setattr(pool_poller, "services_overview", lambda services: {"counts": {"backends": 10_000}})
    poller = PoolPoller(lambda: [muxes[0].path], 1.0)

    async def ask(after_s: float) -> int:
        nonlocal now
        now += after_s
        await poller.poll_details()
        return polls["details"]

    async def follow() -> list[int]:
        return [await ask(after_s) for after_s in (0, 0.5, 0.5, 9.5, 1.0)]

    assert asyncio.run(follow()) == [1, 1, 2, 2, 3]


def test_a_refresh_is_not_waited_for(muxes: list[Served], polls: Counter[str]) -> None:
    poller = PoolPoller(lambda: [muxes[0].path], 0.0)

    async def ask() -> None:
        poller.refresh_details()
        poller.refresh_details()
        assert poller.details is None
        async with asyncio.timeout(20):
            while poller.details is None:
                await asyncio.sleep(0.01)

    asyncio.run(ask())
    assert polls == {"details": 1}
