"""Probes all backends on one event loop, each on its own schedule, with at most one connection to each.

No probe waits for another, or thousands of silent backends would delay the results of all others. A backend
whose state is not known is probed at once, and without pauses until its state is known.  A prober whose own event loop
lags, because a flood keeps its process busy, extends the probes' timeouts by the lag.
"""

import asyncio
import functools
import logging
import random
import socket
from collections.abc import Callable
from typing import Self

from lbmux.config.health_models import Health
from lbmux.config.models import Backend, BackendKey, Config, Service
from lbmux.health.loop_lag import LoopLag
from lbmux.health.probe import Target, attempt
from lbmux.health.probe_kinds import KINDS

log = logging.getLogger(__name__)
SPREAD_S = 0.1
"""The first probes of new backends are spread over this time, so that the loop can handle packets in between."""

OnResult = Callable[[BackendKey, bool, str], None]
"""Takes a backend, whether it is healthy, and the reason."""
Bind = Callable[[BackendKey, str, socket.socket], None]
"""Takes a backend, its service's protocol and the new socket of a probe."""


def always(key: BackendKey) -> bool:
    return True


class Prober:
    """Calls ``on_result`` with every result, and probes only services whose `health.by` is ``by``."""

    def __init__(
        self,
        on_result: OnResult,
        by: str = "mux",
        into_tunnel: Bind | None = None,
        is_known: Callable[[BackendKey], bool] = always,
    ) -> None:
        """``into_tunnel`` prepares the sockets of probes through the tunnel; ``is_known`` returns whether the state of
        a backend is known, which must be the case after a few results.
        """
        self._on_result, self._by, self._into_tunnel, self._is_known = on_result, by, into_tunnel, is_known
        self._tasks: dict[tuple[BackendKey, Target], asyncio.Task[None]] = {}
        self._lag = LoopLag()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self._lag.stop()
        tasks = list(self._tasks.values())
        self._tasks = {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def configure(self, config: Config) -> None:
        """Probe exactly the backends of ``config``; probes that stay the same continue."""
        wanted = {
            ((service.name, backend.name), self._target(service, service.health, backend))
            for service in config.services
            if service.health is not None and service.health.by == self._by
            for backend in service.backends
        }
        for what in self._tasks.keys() - wanted:
            self._tasks.pop(what).cancel()
        for what in wanted - self._tasks.keys():
            self._tasks[what] = asyncio.create_task(self._probe(*what))
        self._lag.measure(bool(self._tasks))

    def _target(self, service: Service, health: Health, backend: Backend) -> Target:
        if health.through == "direct":
            return Target(backend.dip, health.port or backend.port, health)
        assert self._into_tunnel is not None  # a mux's prober has it; agents probe directly
        bind = functools.partial(self._into_tunnel, (service.name, backend.name), service.protocol)
        return Target(service.vip, health.port or service.port, health, bind)

    async def _probe(self, key: BackendKey, target: Target) -> None:
        health, loop = target.health, asyncio.get_running_loop()
        if not self._is_known(key):
            await asyncio.sleep(random.uniform(0, min(SPREAD_S, health.interval_s)))  # spreads load
        while not self._is_known(key):
            self._on_result(key, *await self._attempt(key, target))
        due = loop.time() + random.uniform(0, health.interval_s)  # spreads load
        while True:
            aside_s = random.uniform(-1, 1) * health.jitter * health.interval_s
            await asyncio.sleep(due + aside_s - loop.time())
            self._on_result(key, *await self._attempt(key, target))
            due = max(due + health.interval_s, loop.time())  # do not catch up on late probes

    async def _attempt(self, key: BackendKey, target: Target) -> tuple[bool, str]:
        try:
            healthy, reason = await attempt(KINDS[target.health.kind], target, self._lag.total_s)
            return healthy, f"{reason}, through the tunnel" if target.health.through == "tunnel" else reason
        except Exception as error:  # a bug must not end a backend's probes
            log.exception("probe of backend %s of service %s failed", key[1], key[0])
            return False, f"internal error: {error!r}"
