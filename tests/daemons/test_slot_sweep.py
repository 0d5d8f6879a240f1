"""The sweep of a running mux's slots: no change of the tables meanwhile, and nothing to do in a steady pool."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lbmux.daemons import slot_sweep
from lbmux.daemons.slot_sweep import SlotSweep
from tests.tables.test_flow_sweep import tracked
from tests.tables.test_mux_tables import Mux


def sweeper(mux: Mux, lock: asyncio.Lock | None = None) -> SlotSweep:
    return SlotSweep(mux.control, cast(Any, SimpleNamespace(exclusive=lock)))


def test_the_sweep_waits_for_a_change_under_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(slot_sweep, "SWEEP_S", 0.001)
    mux, swept = Mux(tracked(1, 2)), asyncio.Event()
    monkeypatch.setattr(mux.control.slots, "has_exceptions", lambda: loop.call_soon_threadsafe(swept.set) and False)

    async def run() -> None:
        nonlocal loop
        loop, lock = asyncio.get_running_loop(), asyncio.Lock()
        await lock.acquire()
        async with sweeper(mux, lock).running():
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(swept.wait(), 0.1)
            lock.release()
            await asyncio.wait_for(swept.wait(), 10)

    loop: asyncio.AbstractEventLoop
    asyncio.run(run())
