"""Whether backends that get no new flows still have some: said once they have none, and those that leave then go."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Generic, Protocol, TypeVar

from lbmux.backends import removal
from lbmux.config.models import BackendKey, Service
from lbmux.daemons.reloader import Reloader
from lbmux.errors import LbmuxError

log = logging.getLogger(__name__)
POLL_S = 1.0
"""Between two looks."""


class InForce(Protocol):
    """A moment of tables, or an edge."""

    @property
    def services(self) -> tuple[Service, ...]: ...

    @property
    def rows(self) -> Collection[BackendKey]:
        """The backends that there are."""
        ...


Here = TypeVar("Here", bound=InForce)


class DrainWatch(Generic[Here]):
    """Of whatever has no weight in what is in force; ``without_flows``: which of some have none, asked in a thread."""

    def __init__(
        self, reloader: Reloader, in_force: Callable[[], Here],
        without_flows: Callable[[Here, Collection[BackendKey]], set[BackendKey]],
    ) -> None:  # fmt: skip
        self._reloader, self._in_force, self._without_flows = reloader, in_force, without_flows
        self._drained: set[BackendKey] = set()
        self._services: Sequence[Service] = ()
        self._draining: set[BackendKey] = set()

    def __contains__(self, key: BackendKey) -> bool:
        return key in self._drained

    def forget(self, keys: Collection[BackendKey]) -> None:
        self._drained -= set(keys)

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self._poll()
            except LbmuxError as error:
                log.error("backends that have left are still in force: %s", error)

    async def _poll(self) -> None:
        here, overrides, wanted = self._in_force(), self._reloader.overrides, self._reloader.wanted
        draining = self._without_weight(here.services)
        self._drained &= draining
        # Who leaves is looked at anew: a flow of another mux may have come.
        asked = (draining - self._drained) | (draining & overrides.removals.keys())
        without_flows = await asyncio.to_thread(self._without_flows, here, asked) if asked else set()
        for key in sorted(without_flows - self._drained):
            log.info("backend %s of service %s is drained: no flow left", key[1], key[0])
        self._drained = (self._drained - asked) | without_flows
        if gone := removal.finished(overrides, wanted, here.rows, without_flows, time.time()):
            await self._reloader.follow(lambda _, now: (removal.without(now, gone), sorted(gone)))
            for key in sorted(gone):
                log.info("backend %s of service %s has left", key[1], key[0])

    def _without_weight(self, services: Sequence[Service]) -> set[BackendKey]:
        """Looked for once in each configuration: of thousands of backends that would be felt every second."""
        if services is not self._services:
            self._services = services
            self._draining = {(s.name, b.name) for s in services for b in s.backends if b.weight == 0}
        return self._draining
