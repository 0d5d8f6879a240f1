"""Notices within 100 ms that a mux gets more packets than it can forward, and says so in its log and its state."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

from lbmux.api import answers, requests
from lbmux.api.control_server import Handler, Kind
from lbmux.config.models import Config
from lbmux.daemons.background_task import background_task
from lbmux.daemons.drivers import Driver
from lbmux.daemons.isolation import Isolation
from lbmux.daemons.kernel_shares import KernelShares
from lbmux.daemons.load_shedding import LoadShedding
from lbmux.daemons.packet_loop import PacketLoop
from lbmux.daemons.vip_gate import VipGate
from lbmux.daemons.vip_routes import VipRoutes
from lbmux.datapath.verdicts import Verdict
from lbmux.errors import LbmuxError
from lbmux.linux.receive_counters import dropped_frames, softirq_s
from lbmux.metrics.overload import Counters, Overload
from lbmux.tables.mux_tables import MuxTables

READ_S = 0.05
log = logging.getLogger(__name__)


class OverloadWatch:
    """Reads the counters of one mux every 50 ms, which takes less than 1 % of a core."""

    def __init__(self, interface: str, driver: Driver, loop: PacketLoop, mux: MuxTables, routes: VipRoutes) -> None:
        self._routes = routes
        self._interface, self._driver, self._loop, self._ring = interface, driver, loop, loop.ring
        self.overload = Overload()
        self.load_shedding = LoadShedding(loop.ring.restrict)
        self._shares = self.load_shedding if driver.kernel is None else KernelShares(mux)
        self.isolation, self._isolates = Isolation(VipGate(driver, mux), self._shares), True

    def configure(self, config: Config) -> None:
        self.overload.capacity_pps = config.capacity_pps
        self._shares.configure(config)
        self.isolation.configure(config)
        self._loop.sample = self.load_shedding.take if self.load_shedding.wanted else None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with background_task(self._run()):
            yield

    async def _run(self) -> None:
        due = time.monotonic()
        while True:
            now, since = time.monotonic(), self.overload.since
            self._isolate(now)
            await self._routes.drop_upstream(self.isolation.upstream)
            self._shares.read(now)
            if self.overload.read(now, self._counters(now - due)):
                if since is None:
                    log.warning("overloaded: %s", self.overload.reason)
                else:
                    log.info("no longer overloaded after %.1f s", now - since)
            due = now + READ_S
            await asyncio.sleep(READ_S)

    def _isolate(self, now: float) -> None:
        try:
            self.isolation.read(now, self.overload.since is not None, self.overload.loses(now))
            self._isolates = True
        except LbmuxError as error:
            if self._isolates:  # say it once, not 20 times a second
                log.error("flooded VIPs cannot be isolated: %s", error)
            self._isolates = False

    def handlers(self) -> dict[Kind, Handler]:
        return {requests.Parole: self.isolation.parole}

    def _counters(self, late_s: float) -> Counters:
        in_user_space = self._driver.kernel is None
        packets = self._driver.tables.verdicts["packets"]
        not_isolated = int(packets.sum() - packets[:, Verdict.BLACK_HOLED].sum())
        return Counters(
            packets=not_isolated + self._shares.unseen,
            interface_drops=dropped_frames(self._interface),
            ring_drops=self._ring.dropped(),
            softirq_s=tuple(softirq_s()),
            lag_s=late_s if in_user_space and self._ring.waits() else 0.0,
        )

    def describe(self) -> answers.Overload:
        overload = self.overload
        seconds = None if overload.since is None else round(time.monotonic() - overload.since, 3)
        admitted = {str(vip): answers.Admitted(*share) for vip, share in self._shares.admitted.items()}
        return answers.Overload(
            seconds, overload.reason, overload.times, int(self._shares.dropped), admitted,
            self.isolation.describe(), self.isolation.black_holes.times,
        )  # fmt: skip
