"""Changes of links and routes in a namespace, and a handler that cannot follow them at first."""

import asyncio

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from lbmux.linux.network_events import LINKS, ROUTES, NetworkEvents
from tests.frames.pair import Pair

pytestmark = pytest.mark.root


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), NetlinkError(16), ValueError()])
def test_a_change_that_could_not_be_followed_is_tried_again(
    pair: Pair, error: Exception, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbmux.linux.network_events.LONGEST_DELAY_S", 0.05)
    failures, followed = [error, error], asyncio.Event()

    async def on_change() -> None:
        if failures:
            raise failures.pop()
        followed.set()

    async def run() -> None:
        async with NetworkEvents(LINKS | ROUTES, on_change), asyncio.timeout(10):
            await asyncio.to_thread(pair.netlink, "b", lambda ip, index: ip.link("set", index=index, mtu=1400))
            await followed.wait()

    pair.inside("b", lambda: asyncio.run(run()))
    assert len(caplog.records) == 1
