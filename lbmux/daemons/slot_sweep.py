"""Makes changed slots of Maglev tables steady again as soon as no flow needs a look-up there."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from lbmux.daemons.background_task import background_task
from lbmux.daemons.reloader import Reloader
from lbmux.tables import flow_sweep
from lbmux.tables.flow_sweep import SWEEP_S
from lbmux.tables.mux_tables import MuxTables
from lbmux.targets.regions import now_ticks


class SlotSweep:
    """Sweeps the slots of a mux in a thread, between two changes of its tables."""

    def __init__(self, mux: MuxTables, reloader: Reloader) -> None:
        self._mux, self._reloader = mux, reloader

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await asyncio.to_thread(flow_sweep.warm_up, self._mux.tables)
        async with background_task(self._run()):
            yield

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            async with self._reloader.exclusive:
                await asyncio.to_thread(flow_sweep.sweep, self._mux, now_ticks())
