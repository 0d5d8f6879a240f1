"""Streams end with their client and with the server; other requests go on."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from lbmux.manager import http_server
from lbmux.manager.http_server import HttpServer
from lbmux.manager.open_streams import OpenStreams
from tests.manager.test_nodes import Lab, run, until


@asynccontextmanager
async def serving(ended: list[str]) -> AsyncIterator[tuple[str, OpenStreams]]:
    """A server of a stream and of a change, which note how they end; yield its URL."""

    def handler(name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            try:
                await asyncio.sleep(30 if name == "stream" else 0.3)
                ended.append(f"{name} done")
            except asyncio.CancelledError:
                ended.append(f"{name} cancelled")
                raise
            return web.Response()

        return handle

    streams = OpenStreams(["/{node}/stream"])
    application = web.Application(middlewares=[streams.middleware()])
    application.add_routes([web.get("/{node}/stream", handler("stream")), web.get("/change", handler("change"))])
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=30)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", streams
    finally:
        streams.stop()
        await runner.cleanup()


def test_a_stream_ends_when_its_client_leaves_and_a_change_does_not() -> None:
    ended = list[str]()

    async def scenario() -> None:
        async with serving(ended) as (url, _), aiohttp.ClientSession() as session:
            for path in ("/mux1/stream", "/change"):
                with pytest.raises(TimeoutError):
                    await session.get(url + path, timeout=aiohttp.ClientTimeout(0.1))
            await until(lambda: len(ended) == 2)

    asyncio.run(scenario())
    assert sorted(ended) == ["change done", "stream cancelled"]


def test_a_server_that_stops_does_not_wait_for_streams() -> None:
    ended = list[str]()

    async def scenario() -> float:
        async with aiohttp.ClientSession() as session, serving(ended) as (url, _):
            asking = asyncio.ensure_future(session.get(f"{url}/mux1/stream"))
            await asyncio.sleep(0.1)
            begun = time.monotonic()
        with pytest.raises(aiohttp.ClientError):
            await asking
        return time.monotonic() - begun

    assert asyncio.run(scenario()) < 10 and ended == ["stream cancelled"]


def test_a_manager_stops_at_once_although_nodes_and_watchers_are_connected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "STOP_S", 60.0)

    async def scenario(lab: Lab) -> None:
        tls, headers = lab.identity("mux1").client_context(), {"Authorization": f"Bearer {lab.token}"}
        async with aiohttp.ClientSession() as session, AsyncExitStack() as clients:
            async with HttpServer(lab.managers[0]).listening("127.0.0.1", 0) as port:
                url = f"https://127.0.0.1:{port}/v1"
                await clients.enter_async_context(session.ws_connect(f"{url}/node", ssl=tls))
                watch = await clients.enter_async_context(session.get(f"{url}/watch", ssl=tls, headers=headers))
                await watch.content.readany()
                begun = time.monotonic()
            assert time.monotonic() - begun < 10

    run(tmp_path, scenario)
