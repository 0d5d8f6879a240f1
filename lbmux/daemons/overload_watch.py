"""Notices within 100 ms that a mux gets more packets than it can forward, and says so in its log and its state."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

from lbmux.api import answers
from lbmux.config.models import Config
from lbmux.daemons.background_task import background_task
from lbmux.daemons.drivers import Driver
from lbmux.frames.packet_ring import PacketRing
from lbmux.linux.receive_counters import dropped_frames, softirq_s
from lbmux.metrics.overload import Counters, Overload

READ_S = 0.05
log = logging.getLogger(__name__)


class OverloadWatch:
    """Reads the counters of one mux every 50 ms, which takes less than 1 % of a core."""

    def __init__(self, interface: str, driver: Driver, ring: PacketRing) -> None:
        self._interface, self._driver, self._ring = interface, driver, ring
        self.overload = Overload()

    def configure(self, config: Config) -> None:
        self.overload.capacity_pps = config.capacity_pps

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with background_task(self._run()):
            yield

    async def _run(self) -> None:
        due = time.monotonic()
        while True:
            now, since = time.monotonic(), self.overload.since
            if self.overload.read(now, self._counters(now - due)):
                if since is None:
                    log.warning("overloaded: %s", self.overload.reason)
                else:
                    log.info("no longer overloaded after %.1f s", now - since)
            due = now + READ_S
            await asyncio.sleep(READ_S)

    def _counters(self, late_s: float) -> Counters:
        in_user_space = self._driver.kernel is None
        return Counters(
            packets=int(self._driver.tables.verdicts["packets"].sum()),
            interface_drops=dropped_frames(self._interface),
            ring_drops=self._ring.dropped(),
            softirq_s=tuple(softirq_s()),
            lag_s=late_s if in_user_space and self._ring.waits() else 0.0,
        )

    def describe(self) -> answers.Overload:
        overload = self.overload
        seconds = None if overload.since is None else round(time.monotonic() - overload.since, 3)
        return answers.Overload(seconds, overload.reason, overload.times)
