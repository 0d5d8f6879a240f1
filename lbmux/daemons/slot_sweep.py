"""Makes changed slots of Maglev tables steady again, as soon as no flow needs them to be looked up."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from lbmux.daemons.reloader import Reloader
from lbmux.tables import flow_sweep
from lbmux.tables.mux_tables import MuxTables
from lbmux.targets.regions import now_ticks

SWEEP_S = 5.0
"""Between two sweeps."""


class SlotSweep:
    """Sweeps the slots of a mux in a thread, between two changes of its tables."""

    def __init__(self, mux: MuxTables, reloader: Reloader) -> None:
        self._mux, self._reloader = mux, reloader

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await asyncio.to_thread(flow_sweep.warm_up, self._mux.tables)
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            async with self._reloader.exclusive:
                await asyncio.to_thread(self.sweep, now_ticks())

    def sweep(self, now: int) -> None:
        """Settle the slots whose time is over, and make those steady that have no exceptions. ``now`` is in ticks.

        A slot gets exceptions in one sweep and is steady in the next one at the earliest: an entry that the data path
        makes by the slot's base at this moment is found then.
        """
        if not self._mux.is_marked():
            return
        self._mux.end_exceptions(flow_sweep.deviating(self._mux.tables, now))
        self._mux.settle(now)
        flow_sweep.drop_needless(self._mux.tables)
