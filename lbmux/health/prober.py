"""Probes all backends, each at its own time, on one event loop and by one connection to each at the most.

Nobody waits for another's turn: silent backends, by the thousand, would make the news of all others late.  A backend of
which nothing is known is probed at once, and again without a pause until it is settled whether it is up.
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
from lbmux.health.probe import Target, attempt
from lbmux.health.probe_kinds import KINDS

log = logging.getLogger(__name__)
SPREAD_S = 0.1
"""Over how long the first probes of many new backends are spread, so that packets have their turn between them."""

Heard = Callable[[BackendKey, bool, str], None]
Bind = Callable[[BackendKey, str, socket.socket], None]
"""Given a backend, its service's protocol and a new socket of a probe."""


def always(key: BackendKey) -> bool:
    return True


class Prober:
    """``heard`` gets every result; only services whose probes are to be made ``by`` us have any."""

    def __init__(
        self,
        heard: Heard,
        by: str = "mux",
        into_tunnel: Bind | None = None,
        settled: Callable[[BackendKey], bool] = always,
    ) -> None:
        """``into_tunnel`` is called for the sockets of probes that are to go through it; ``settled`` says whether it
        is known of a backend that it is up or down, which a few results must bring about."""
        self._heard, self._by, self._into_tunnel, self._settled = heard, by, into_tunnel, settled
        self._tasks: dict[tuple[BackendKey, Target], asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        tasks = list(self._tasks.values())
        self._tasks = {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def configure(self, config: Config) -> None:
        """Probe the backends of ``config`` and no others; what stays the same goes on."""
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

    def _target(self, service: Service, health: Health, backend: Backend) -> Target:
        if health.through == "direct":
            return Target(backend.dip, health.port or backend.port, health)
        assert self._into_tunnel is not None  # a mux's prober has it, and agents' probes are direct
        bind = functools.partial(self._into_tunnel, (service.name, backend.name), service.protocol)
        return Target(service.vip, health.port or service.port, health, bind)

    async def _probe(self, key: BackendKey, target: Target) -> None:
        health, loop = target.health, asyncio.get_running_loop()
        if not self._settled(key):
            await asyncio.sleep(random.uniform(0, min(SPREAD_S, health.interval_s)))  # spreads load
        while not self._settled(key):
            self._heard(key, *await self._attempt(key, target))
        due = loop.time() + random.uniform(0, health.interval_s)  # spreads load
        while True:
            aside_s = random.uniform(-1, 1) * health.jitter * health.interval_s
            await asyncio.sleep(due + aside_s - loop.time())
            self._heard(key, *await self._attempt(key, target))
            due = max(due + health.interval_s, loop.time())  # what was missed is not made up for

    async def _attempt(self, key: BackendKey, target: Target) -> tuple[bool, str]:
        try:
            healthy, reason = await attempt(KINDS[target.health.kind], target)
            return healthy, f"{reason}, through the tunnel" if target.health.through == "tunnel" else reason
        except Exception as error:  # a fault of ours must not leave a backend without probes
            log.exception("probe of backend %s of service %s", key[1], key[0])
            return False, f"internal error: {error!r}"
