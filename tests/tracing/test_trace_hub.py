"""A loop with more frames than the budget is not traced for a while, and its frames are counted meanwhile."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from lbmux.api.requests import Trace
from lbmux.daemons.drivers import Driver
from lbmux.datapath.verdicts import Verdict
from lbmux.frames.batch import Batch
from lbmux.tables.snapshot import Snapshot
from lbmux.tracing.trace_budget import FRAMES_A_SECOND
from lbmux.tracing.trace_hub import PAUSE_S, TraceHub
from tests.linux.inside import Inside

CONFIG = {
    "services": [{"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80, "backends": [{"dip": "10.1.1.2"}]}]
}
FRAME = np.zeros(60, np.uint8)


class Loop:
    """A packet loop: it records the trace hub that was switched on, or None."""

    def __init__(self) -> None:
        self.tables = Inside(CONFIG)
        self.switched: list[TraceHub | None] = []
        snapshot: Snapshot = self.tables.snapshot
        self.trace_hub = TraceHub(
            lambda: snapshot, self.switched.append, Driver("mux", "eth0", snapshot.tables, 0, "packet")
        )
        self.counted = snapshot.tables.verdicts[0]["packets"]

    def batch(self, count: int) -> int:
        """One comes; how many of its frames are looked at."""
        batch = Batch(count)
        batch.count, batch.address[:], batch.length[:] = count, FRAME.ctypes.data, len(FRAME)
        looked_at = len(self.trace_hub.before(batch))
        self.counted[Verdict.NOT_IP] += count
        return looked_at


@pytest.fixture
def loop() -> Loop:
    return Loop()


@contextmanager
def watched(loop: Loop) -> Iterator[tuple[asyncio.Runner, Any]]:
    with asyncio.Runner() as runner:
        stream = loop.trace_hub.watch(Trace("udp and port 9"))

        async def answer() -> Any:
            return await anext(stream)

        runner.run(answer())
        yield runner, answer
        runner.run(stream.aclose())


def test_a_loop_is_not_traced_after_the_budget_until_a_pause(loop: Loop) -> None:
    looked_at = list[int]()
    with watched(loop) as (runner, answer):

        async def busy() -> None:
            assert [loop.batch(FRAMES_A_SECOND - 100), loop.switched] == [FRAMES_A_SECOND - 100, [loop.trace_hub]]
            looked_at.append(loop.batch(256))  # 100, plus what has accrued since
            assert 100 <= looked_at[0] < 256 and loop.switched == [loop.trace_hub, None]
            loop.counted[Verdict.FORWARDED] += 3000  # meanwhile, while not traced
            await asyncio.sleep(1.5 * PAUSE_S)
            assert loop.switched == [loop.trace_hub, None, loop.trace_hub]

        runner.run(busy())
        said = runner.run(answer())
        assert (said.skipped, said.frames) == (256 - looked_at[0] + 3000, [])


def test_a_second_watcher_does_not_end_the_pause_nor_the_last_one_s_leaving_begin_another(loop: Loop) -> None:
    with watched(loop) as (runner, _):

        async def busy() -> None:
            loop.batch(2 * FRAMES_A_SECOND)
            second = loop.trace_hub.watch(Trace())
            await anext(second)
            assert loop.switched == [loop.trace_hub, None]
            await second.aclose()
            await asyncio.sleep(1.5 * PAUSE_S)
            assert loop.switched == [loop.trace_hub, None, loop.trace_hub]
            loop.batch(2 * FRAMES_A_SECOND)

        runner.run(busy())

    async def quiet() -> None:
        await asyncio.sleep(1.5 * PAUSE_S)

    asyncio.run(quiet())
    assert loop.switched[-1] is None
