"""Reload: read the file anew beside the packets, put it in force between two of them, or leave all as it was."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from lbmux.control.config import Config
from lbmux.control.config_changes import changes
from lbmux.control.config_file import load
from lbmux.errors import LbmuxError

log = logging.getLogger(__name__)


class Reloadable(Protocol):
    """Tables that plan in a thread and commit at once."""

    config: Config | None

    def plan(self, config: Config) -> Any: ...

    def commit(self, plan: Any) -> None: ...


async def nothing_leaves(config: Config) -> bool:
    return False


def as_it_is(config: Config) -> Config:
    return config


class Reloader:
    """One configuration file and the tables that it governs.  Reloads wait for one another.

    ``on_commit`` is awaited when a configuration has come into force; ``adjust`` makes of the file's configuration the
    one that the tables get; ``wanted`` is the file's own.  ``leaving`` is awaited before a commit, with what the tables
    are to get, so that no packet comes any more for what goes; it says whether there was anything.
    """

    def __init__(
        self, path: Path, tables: Reloadable, on_commit: Callable[[], Awaitable[None]], wanted: Config | None = None,
        adjust: Callable[[Config], Config] = as_it_is, leaving: Callable[[Config], Awaitable[bool]] = nothing_leaves,
    ) -> None:  # fmt: skip
        config = wanted or tables.config
        assert config is not None, "the tables are in force before they are reloaded"
        self.path, self.wanted = path, config
        self._tables, self._on_commit, self._adjust, self._leaving = tables, on_commit, adjust, leaving
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    async def reload(self) -> dict[str, Any]:
        """What changed; a file that cannot be used raises, and the running configuration stays in force."""
        async with self._lock:
            config = await asyncio.to_thread(load, self.path)
            before = self.wanted
            await self._enforce(config)
        said = changes(before, config)
        if before.flows.limit != config.flows.limit:
            said.append(f"flows.limit: {before.flows.limit} stays in force until the next start")
        log.info("configuration %s in force: %s", self.path, "; ".join(said) or "nothing changed")
        return {"changes": said}

    async def refresh(self) -> None:
        """Put the same file's configuration in force again: what `adjust` makes of it has changed."""
        async with self._lock:
            await self._enforce(self.wanted)

    async def _enforce(self, config: Config) -> None:
        adjusted = self._adjust(config)
        plan = await asyncio.to_thread(self._tables.plan, adjusted)
        if await self._leaving(adjusted):  # that took a while: next hops may have changed
            plan = await asyncio.to_thread(self._tables.plan, adjusted)
        self._tables.commit(plan)
        self.wanted = config
        await self._on_commit()

    def soon(self) -> None:
        """Reload without waiting for it: for a signal's handler."""
        task = asyncio.create_task(self.reload_or_log())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def reload_or_log(self) -> None:
        """Reload where nobody waits for an answer: the log says what happened."""
        try:
            await self.reload()
        except LbmuxError as error:
            for line in str(error).splitlines():
                log.error("%s", line)
            log.error("configuration %s not loaded: the running one stays in force", self.path)
