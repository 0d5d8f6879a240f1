"""A control socket that a thread of its own serves, as a daemon's is by another process."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lbmux.api.control_server import ControlServer, Handler, Handlers
from lbmux.api.requests import Request


def said(answer: Any) -> Handler:
    """Return a handler that always gives this answer."""

    async def handler(request: Request[Any]) -> Any:
        return answer

    return handler


@contextmanager
def answering(path: Path, handlers: Handlers) -> Iterator[None]:
    loop, server = asyncio.new_event_loop(), ControlServer(path, handlers)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(5)
        yield
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(5)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
