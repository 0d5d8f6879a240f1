"""A daemon ends its overrides in time."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from lbmux.backends.override_commands import set_admin_state
from lbmux.daemons import override_timer
from lbmux.daemons.override_timer import end_overrides
from tests.daemons.test_reloader import TapRecord, with_orders


def test_a_drain_becomes_disabled_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(override_timer, "POLL_S", 0.001)

    async def scenario() -> None:
        reloader, book = with_orders(tmp_path, TapRecord())
        backend = reloader.config.services[0].backends[0].name
        await reloader.change(set_admin_state("drain", backend, "web", 1.0, until=60.0, deadline=20.0))
        now = [19.0]
        ending = asyncio.create_task(end_overrides(reloader, lambda: now[0]))
        async with asyncio.timeout(10):
            for at, wanted in ((19.0, "drain"), (20.0, "disable"), (60.0, None)):
                now[0] = at
                while reloader.overrides.admin_states.get(("web", backend)) != wanted:
                    await asyncio.sleep(0.001)
        ending.cancel()
        with suppress(asyncio.CancelledError):
            await ending
        assert book.overrides == reloader.overrides and book.is_stored

    asyncio.run(scenario())
