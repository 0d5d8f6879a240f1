"""Probes all backends, each at its own time, on one event loop and by a bounded number of connections."""

import asyncio
import functools
import logging
import random
import socket
from collections.abc import Callable
from typing import Self

from lbmux.control.config import Backend, Config, Service
from lbmux.control.config_health import Health
from lbmux.control.health.kinds import KINDS
from lbmux.control.health.probe import Target, attempt
from lbmux.control.orders import Key

log = logging.getLogger(__name__)
AT_ONCE = 256
"""Probes under way at a time; the others wait for their turn."""

Heard = Callable[[Key, bool, str], None]
Bind = Callable[[Key, str, socket.socket], None]
"""Given a backend, its service's protocol and a new socket of a probe."""


class Prober:
    """``heard`` gets every result; only services whose probes are to be made ``by`` us have any."""

    def __init__(self, heard: Heard, by: str = "mux", into_tunnel: Bind | None = None) -> None:
        """``into_tunnel`` is called for the sockets of probes that are to go through it."""
        self._heard, self._by, self._into_tunnel = heard, by, into_tunnel
        self._tasks: dict[tuple[Key, Target], asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

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

    async def _probe(self, key: Key, target: Target) -> None:
        health, loop = target.health, asyncio.get_running_loop()
        due = loop.time() + random.uniform(0, health.interval_s)  # noqa: S311 -- spreads load, keeps no secret
        while True:
            aside_s = random.uniform(-1, 1) * health.jitter * health.interval_s  # noqa: S311
            await asyncio.sleep(due + aside_s - loop.time())
            async with self._turns:
                healthy, reason = await self._attempt(key, target)
            self._heard(key, healthy, reason)
            due = max(due + health.interval_s, loop.time())  # what was missed is not made up for

    async def _attempt(self, key: Key, target: Target) -> tuple[bool, str]:
        try:
            healthy, reason = await attempt(KINDS[target.health.kind], target)
            return healthy, f"{reason}, through the tunnel" if target.health.through == "tunnel" else reason
        except Exception as error:  # a fault of ours must not leave a backend without probes
            log.exception("probe of backend %s of service %s", key[1], key[0])
            return False, f"internal error: {error!r}"
