"""Puts configurations in force: reads the file, plans the tables in a thread, commits them between two packets.

An error at any point leaves the running configuration in force.  Overrides (lbmux.backends.overrides) and backend
states go the same way.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from lbmux.api import requests
from lbmux.api.answers import Reloaded
from lbmux.api.control_server import Handler, Kind
from lbmux.backends.override_commands import Change, without_obsolete
from lbmux.backends.override_precedence import precedences
from lbmux.backends.override_store import NotStoredError, OverrideStore
from lbmux.backends.overrides import Overrides, with_overrides
from lbmux.backends.removal import BY_FILE, with_removals
from lbmux.config.changes import changes
from lbmux.config.loader import load
from lbmux.config.models import BackendKey, Config
from lbmux.daemons.config_listeners import Listener, RunningConfig, notify_listeners
from lbmux.errors import LbmuxError

log = logging.getLogger(__name__)


class Reloadable(Protocol):
    """Tables that plan in a thread and commit between two packets."""

    @property
    def config(self) -> Config | None: ...

    def plan(self, config: Config) -> Any: ...

    def commit(self, plan: Any) -> None: ...


class Effective(Protocol):
    """Turns a configuration with overrides into that of the tables. ``dry_run``: the caller will not apply it."""

    def __call__(self, config: Config, overrides: Overrides, /, *, dry_run: bool = False) -> Config: ...


async def nothing_to_withdraw(config: Config) -> bool:
    return False


def all_backends(config: Config, overrides: Overrides, /, *, dry_run: bool = False) -> Config:
    """Return the effective configuration where no backend is ever down."""
    return config


class Reloader:
    """One configuration file, the overrides beside it, and the tables that hold both.  One change at a time.

    ``config`` is the file's; ``wanted`` adds the overrides; ``effective`` makes of it what the tables get.
    ``removals`` is awaited before a commit, with what the tables will get: it withdraws routes of VIPs that go away,
    and returns whether there were any.  ``listeners`` are called in order after each commit.  ``clock`` gives seconds
    since 1970.
    """

    def __init__(
        self,
        path: Path,
        tables: Reloadable,
        config: Config | None = None,
        book: OverrideStore | None = None,
        effective: Effective = all_backends,
        removals: Callable[[Config], Awaitable[bool]] = nothing_to_withdraw,
        clock: Callable[[], float] = time.time,
    ) -> None:
        config = config or tables.config
        assert config is not None, "tables can be reloaded only while they are in force"
        self.path, self.config, self._book = path, config, book or OverrideStore(None, config)
        self.wanted = with_overrides(config, self.overrides)
        self.listeners: Sequence[Listener] = ()
        self._tables, self._effective, self._removals, self._clock = tables, effective, removals, clock
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def overrides(self) -> Overrides:
        return self._book.overrides

    @property
    def running(self) -> RunningConfig:
        assert self._tables.config is not None
        return RunningConfig(self.wanted, self._tables.config)

    def handlers(self) -> dict[Kind, Handler]:
        return {requests.Reload: lambda request: self.reload(), requests.GetConfig: self.loaded}

    async def loaded(self, request: requests.GetConfig) -> str:
        """Return the file's configuration as it was loaded, in JSON."""
        return await asyncio.to_thread(self.config.model_dump_json)

    async def reload(self) -> Reloaded:
        """Load the file; return what changed, and which overrides take precedence over the file.

        An invalid file raises ConfigError, and the running configuration stays in force.
        """
        async with self._lock:
            config = await asyncio.to_thread(load, self.path)
            before, overrides = self.config, without_obsolete(config, self.overrides)
            overrides = with_removals(
                config, overrides, self.wanted, self.overrides.admin_states, self._clock(), BY_FILE
            )
            await self._enforce(config, overrides, await self._prepared(overrides))
        lines = await asyncio.to_thread(changes, before, config)
        if not self._book.is_stored:
            lines.append(f"overrides: not stored in {self._book.path}: changes last until a restart")
        if before.flows.limit != config.flows.limit:
            lines.append(f"flows.limit: {before.flows.limit} stays in force until the next start")
        override_lines = precedences(config, self.overrides)
        log.info("configuration %s in force: %s", self.path, "; ".join([*lines, *override_lines]) or "nothing changed")
        return Reloaded(lines, override_lines)

    async def follow_manager(self, config: Config, overrides: Overrides) -> None:
        """Put the pool's configuration and overrides in force, at once; they replace the file's and the local ones."""
        async with self._lock:
            overrides = self._replaced(config, overrides)
            await self._enforce(config, overrides, await self._prepared(overrides))

    async def plan_only(self, config: Config, overrides: Overrides) -> Any:
        """Return the tables' plan for the pool's configuration and overrides; raise TableError if it does not fit.

        Nothing is put in force, and the plan must not be committed.
        """
        async with self._lock:
            overrides = self._replaced(config, overrides)
            effective = self._effective(with_overrides(config, overrides), overrides, dry_run=True)
            return await asyncio.to_thread(self._tables.plan, effective)

    def _replaced(self, config: Config, overrides: Overrides) -> Overrides:
        """Return the pool's overrides, with the removals that they and the pool's configuration lead to here."""
        before = self.overrides
        return with_removals(
            config, Overrides(overrides.of, before.removals), self.wanted, before.admin_states, self._clock(), BY_FILE
        )

    @property
    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """A context in which no change is planned or committed."""
        return self._lock

    async def update_states(self) -> None:
        """Write changed backend states to the tables; the configuration stays, so its listeners are not called."""
        async with self._lock:
            new = await self._prepared(self.overrides)
            await self._enforce(self.config, self.overrides, new, only_states=True)

    async def change(self, change: Change) -> list[BackendKey]:
        """Put an override in force and store it; returns its backends.  Raise NotStoredError if it cannot be stored."""
        async with self._lock:
            overrides, keys = await asyncio.to_thread(change, self.config, self.overrides)
            await self._enforce(self.config, overrides, await asyncio.to_thread(self._book.prepare, overrides))
        if not self._book.is_stored:  # prepared, but the file could not be replaced; the log has the reason
            raise NotStoredError(self._book.path, "the file could not be replaced", in_force=True)
        return keys

    async def follow(self, change: Change) -> None:
        """Apply a change that no operator requested, even if it cannot be stored: a restart would repeat it."""
        async with self._lock:
            overrides, _ = await asyncio.to_thread(change, self.config, self.overrides)
            await self._enforce(self.config, overrides, await self._prepared(overrides))

    async def _prepared(self, overrides: Overrides) -> Path | None:
        try:
            return await asyncio.to_thread(self._book.prepare, overrides)
        except NotStoredError as error:
            log.warning("%s", NotStoredError(error.path, error.reason, in_force=True))
            return None

    async def _enforce(
        self, config: Config, overrides: Overrides, new: Path | None, *, only_states: bool = False
    ) -> None:
        """``new``: the overrides' file, prepared."""
        wanted = with_overrides(config, overrides)
        effective = self._effective(wanted, overrides)
        try:
            plan = await asyncio.to_thread(self._tables.plan, effective)
            if await self._removals(effective):  # planning takes a while: next hops may have changed
                plan = await asyncio.to_thread(self._tables.plan, effective)
            self._tables.commit(plan)
        except BaseException:
            self._book.discard(new)
            raise
        self.config, self.wanted = config, wanted
        self._book.commit(overrides, new)
        await notify_listeners(self.listeners, self.running, only_states=only_states)

    def soon(self) -> None:
        """Start a reload and return at once: for a signal handler."""
        task = asyncio.create_task(self.reload_or_log())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def reload_or_log(self) -> None:
        """Reload and log the outcome: for callers that read no answer."""
        try:
            await self.reload()
        except LbmuxError as error:
            for line in str(error).splitlines():
                log.error("%s", line)
            log.error("configuration %s not loaded: the running one stays in force", self.path)
