"""A pool to look at: two muxes' tables, each behind a control socket, and a server of the page."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from lbmux.control.control_socket import ControlServer
from lbmux.programs.drivers import Driver
from lbmux.programs.showing import Showing
from lbmux.tools.web.server import Site
from tests.control.inside import Inside

Visit = Callable[[TestClient[Any, Any]], Awaitable[None]]


class Served(Inside):
    """A mux's tables behind a control socket, which a thread of its own serves."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.health: list[dict[str, Any]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        about = {"interface": "eth0", "addresses": ["10.0.1.2"]}
        driver = Driver("mux", "eth0", self.tables, 0, "packet")
        handlers = Showing(lambda: self.moment, driver, path, about).handlers()
        self._server = ControlServer(path, handlers | {"health": self._health})
        asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(5)

    async def _health(self) -> dict[str, Any]:
        return {"health": self.health}

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.stop(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def muxes(tmp_path: Path) -> Iterator[list[Served]]:
    served = [Served(tmp_path / f"mux{number}.sock") for number in (1, 2)]
    yield served
    for one in served:
        one.close()


@pytest.fixture
def site(muxes: list[Served], tmp_path: Path) -> Site:
    board = tmp_path / "scoreboard.json"
    board.write_text(json.dumps({"results": [{"what": "forwarding", "value": 0.123456, "passed": True}]}))
    return Site([mux.path for mux in muxes], board, 0.1)


def visit(site: Site, what: Visit, token: str | None = None) -> None:
    """Do something as a client of the page's server."""

    async def there() -> None:
        async with TestClient(TestServer(site.application(token))) as client:
            await what(client)

    asyncio.run(there())
