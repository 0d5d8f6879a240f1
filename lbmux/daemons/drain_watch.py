"""Watches backends that get no new flows: logs when their last flow has ended, and ends removals that are complete."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Generic, Protocol, TypeVar

from lbmux.backends import removal
from lbmux.config.models import BackendKey, Service
from lbmux.daemons.background_task import background_task
from lbmux.daemons.reloader import Reloader
from lbmux.errors import LbmuxError

log = logging.getLogger(__name__)
POLL_S = 1.0
"""Seconds between two polls."""
LAST_SYN_S = 5.0
"""Seconds after which a drained backend gets no more SYNs, and those that it got have made connections."""


class InForce(Protocol):
    """The state in force: a snapshot of tables, or of an edge."""

    @property
    def services(self) -> tuple[Service, ...]: ...

    @property
    def rows(self) -> Collection[BackendKey]:
        """The backends in it."""
        ...


State = TypeVar("State", bound=InForce)


class DrainWatch(Generic[State]):
    """Polls the backends without weight; a backend is ``in`` it once it is drained.

    ``without_flows`` runs in a thread and returns those of some backends that have no flow. It is not asked about those
    whose host has had no connection since a time, in seconds of the monotonic clock, as ``is_empty`` says.
    """

    def __init__(
        self,
        reloader: Reloader,
        in_force: Callable[[], State],
        without_flows: Callable[[State, Collection[BackendKey]], set[BackendKey]],
        is_empty: Callable[[BackendKey, float], bool] = lambda key, since: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._reloader, self._in_force, self._without_flows = reloader, in_force, without_flows
        self._is_empty, self._clock = is_empty, clock
        self._since: dict[BackendKey, float] = {}
        """When each backend was first seen to get no new flows, in seconds of the monotonic clock."""
        self._drained: set[BackendKey] = set()
        self._services: Sequence[Service] = ()
        self._draining: set[BackendKey] = set()

    def __contains__(self, key: BackendKey) -> bool:
        return key in self._drained

    def forget(self, keys: Collection[BackendKey]) -> None:
        """Report these backends again when they are drained, because their overrides have changed."""
        self._drained -= set(keys)

    def running(self) -> contextlib.AbstractAsyncContextManager[None]:
        return background_task(self.watch())

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self._poll(self._clock())
            except LbmuxError as error:
                log.error("removed backends are still in force: %s", error)

    async def _poll(self, now: float) -> None:
        """``now``: seconds since 1970."""
        here, overrides, wanted = self._in_force(), self._reloader.overrides, self._reloader.wanted
        draining = self._without_weight(here.services)
        self._drained &= draining
        self._since = {key: self._since.get(key, time.monotonic()) for key in draining}
        # Ask again for backends that are being removed: another mux may have sent them a flow.
        candidates = (draining - self._drained) | (draining & overrides.removals.keys())
        empty = {key for key in candidates if self._is_empty(key, self._since[key] + LAST_SYN_S)}
        asked = candidates - empty
        without_flows = empty | (await asyncio.to_thread(self._without_flows, here, asked) if asked else set())
        for key in sorted(without_flows - self._drained):
            log.info("backend %s of service %s is drained: no flow left", key[1], key[0])
        self._drained = (self._drained - candidates) | without_flows
        if gone := removal.finished(overrides, wanted, here.rows, without_flows, empty, now):
            await self._reloader.follow(lambda _, current: (removal.without(current, gone), sorted(gone)))
            for key in sorted(gone):
                log.info("backend %s of service %s is removed", key[1], key[0])

    def _without_weight(self, services: Sequence[Service]) -> set[BackendKey]:
        """Return the backends without weight, computed once per configuration: each search delays packets."""
        if services is not self._services:
            self._services = services
            self._draining = {(s.name, b.name) for s in services for b in s.backends if b.weight == 0}
        return self._draining
