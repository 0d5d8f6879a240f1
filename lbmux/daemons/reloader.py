"""Reload: read the file anew beside the packets, put it in force between two of them, or leave all as it was.

Orders about backends (control.orders) come into force in the same way: all of it or nothing.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from lbmux.backends.override_commands import Change, without_obsolete
from lbmux.backends.override_precedence import precedences
from lbmux.backends.override_store import NotStoredError, OverrideStore
from lbmux.backends.overrides import Overrides, with_overrides
from lbmux.backends.removal import BY_FILE, with_removals
from lbmux.config.changes import changes
from lbmux.config.loader import load
from lbmux.config.models import BackendKey, Config
from lbmux.errors import LbmuxError

log = logging.getLogger(__name__)


class Reloadable(Protocol):
    """Tables that plan in a thread and commit at once."""

    config: Config | None

    def plan(self, config: Config) -> Any: ...

    def commit(self, plan: Any) -> None: ...


async def nothing_to_withdraw(config: Config) -> bool:
    return False


def as_it_is(config: Config, overrides: Overrides) -> Config:
    return config


class Reloader:
    """One configuration file, what was ordered beside it, and the tables that both govern.  Changes wait in line.

    ``on_commit`` is awaited when a configuration has come into force.  ``wanted`` is the file's with the orders of the
    ``book``; ``adjust`` makes of it the one that the tables get.  ``removals`` is awaited before a commit, with what
    the
    tables are to get, so that no packet comes any more for what goes; it says whether there was anything.
    """

    def __init__(
        self, path: Path, tables: Reloadable, on_commit: Callable[[], Awaitable[None]], config: Config | None = None,
        book: OverrideStore | None = None, adjust: Callable[[Config, Overrides], Config] = as_it_is,
        removals: Callable[[Config], Awaitable[bool]] = nothing_to_withdraw,
    ) -> None:  # fmt: skip
        config = config or tables.config
        assert config is not None, "the tables are in force before they are reloaded"
        self.path, self.config, self._book = path, config, book or OverrideStore(None, config)
        self.wanted = with_overrides(config, self.overrides)
        self._tables, self._on_commit, self._adjust, self._leaving = tables, on_commit, adjust, removals
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def overrides(self) -> Overrides:
        return self._book.overrides

    def handlers(self) -> dict[str, Any]:
        return {"reload": self.reload, "config": self.loaded}

    async def loaded(self) -> str:
        """The file's configuration as it was loaded, in JSON."""
        return await asyncio.to_thread(self.config.model_dump_json)

    async def reload(self) -> dict[str, Any]:
        """What changed, and which overrides take precedence over the file.

        A file that cannot be used raises, and the running configuration stays in force.
        """
        async with self._lock:
            config = await asyncio.to_thread(load, self.path)
            before, overrides = self.config, without_obsolete(config, self.overrides)
            overrides = with_removals(config, overrides, self.wanted, self.overrides.admin_states, time.time(), BY_FILE)
            await self._enforce(config, overrides, await self._prepared(overrides))
        said = await asyncio.to_thread(changes, before, config)
        if not self._book.is_stored:
            said.append(f"overrides: not stored in {self._book.path}: changes are in force until a restart")
        if before.flows.limit != config.flows.limit:
            said.append(f"flows.limit: {before.flows.limit} stays in force until the next start")
        override_lines = precedences(config, self.overrides)
        log.info("configuration %s in force: %s", self.path, "; ".join([*said, *override_lines]) or "nothing changed")
        return {"changes": said, "overrides": override_lines}

    async def refresh(self) -> None:
        """Put the same file's configuration in force again: what `adjust` makes of it has changed."""
        async with self._lock:
            await self._enforce(self.config, self.overrides, await self._prepared(self.overrides))

    async def change(self, change: Change) -> list[BackendKey]:
        """Put another order in force, and store it; the backends that it is about.  NotStoredError if it cannot be."""
        async with self._lock:
            overrides, keys = await asyncio.to_thread(change, self.config, self.overrides)
            await self._enforce(self.config, overrides, await asyncio.to_thread(self._book.prepare, overrides))
        if not self._book.is_stored:  # it was prepared, and yet could not be put in place, which the log explains
            raise NotStoredError(self._book.path, "the file could not be replaced", in_force=True)
        return keys

    async def follow(self, change: Change) -> None:
        """Put in force what came of itself, stored or not: a restart would find it out again."""
        async with self._lock:
            overrides, _ = await asyncio.to_thread(change, self.config, self.overrides)
            await self._enforce(self.config, overrides, await self._prepared(overrides))

    async def _prepared(self, overrides: Overrides) -> Path | None:
        try:
            return await asyncio.to_thread(self._book.prepare, overrides)
        except NotStoredError as error:
            log.warning("%s", NotStoredError(error.path, error.reason, in_force=True))
            return None

    async def _enforce(self, config: Config, overrides: Overrides, new: Path | None) -> None:
        """``new``: the orders' file, prepared."""
        wanted = with_overrides(config, overrides)
        adjusted = self._adjust(wanted, overrides)
        try:
            plan = await asyncio.to_thread(self._tables.plan, adjusted)
            if await self._leaving(adjusted):  # that took a while: next hops may have changed
                plan = await asyncio.to_thread(self._tables.plan, adjusted)
            self._tables.commit(plan)
        except BaseException:
            self._book.discard(new)
            raise
        self.config, self.wanted = config, wanted
        self._book.commit(overrides, new)
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
