"""Answers without an end, such as server-sent events and connections of nodes: they end when their client has left, and
at once when the server stops. Other requests go on without their client, so that a change is not left half done.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class OpenStreams:
    """``paths``: those of the streams, as routes name them.  The server cancels a handler whose client has left."""

    def __init__(self, paths: Collection[str]) -> None:
        self._paths, self._tasks = frozenset(paths), set[asyncio.Task[Any] | None]()

    def middleware(self) -> Any:
        """Return what the application calls for each request."""

        @web.middleware
        async def run(request: web.Request, handler: Handler) -> web.StreamResponse:
            resource = request.match_info.route.resource
            if resource is None or resource.canonical not in self._paths:
                return await asyncio.shield(asyncio.ensure_future(handler(request)))
            task = asyncio.current_task()
            self._tasks.add(task)
            try:
                return await handler(request)
            finally:
                self._tasks.discard(task)

        return run

    def stop(self) -> None:
        """End all."""
        for task in self._tasks:
            if task is not None:
                task.cancel()
