"""A coroutine that runs beside a block, such as the loop of a part while its daemon runs."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import Any

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def background_task(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run ``work`` until the block ends; then cancel it, and wait until it has ended. An error of its own is logged."""
    task = asyncio.create_task(work)
    task.add_done_callback(_log_error)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _log_error(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        name = getattr(task.get_coro(), "__qualname__", "a task")
        log.error("%s failed; it stays off until the daemon is restarted", name, exc_info=error)
