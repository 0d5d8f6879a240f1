"""A control socket that a thread serves, in place of a daemon's process."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from lbmux.api.control_server import ControlServer, Handler, Handlers
from lbmux.api.requests import Request


def said(answer: Any) -> Handler:
    """Return a handler that always gives this answer."""

    async def handler(request: Request[Any]) -> Any:
        return answer

    return handler


class ServerThread:
    """Serves a control socket from construction to ``close``."""

    def __init__(self, path: Path, handlers: Handlers) -> None:
        self._loop, self._server = asyncio.new_event_loop(), ControlServer(path, handlers)
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        try:
            self._run(self._server.start())
        except BaseException:
            self._end()
            raise

    def answers(self, line: bytes) -> AsyncGenerator[bytes]:
        """Answer a request that a manager relays."""
        return self._server.answers(line)

    def close(self) -> None:
        try:
            self._run(self._server.stop())
        finally:
            self._end()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(5)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def answering(path: Path, handlers: Handlers) -> Iterator[None]:
    with closing(ServerThread(path, handlers)):
        yield
