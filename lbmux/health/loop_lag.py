"""How far the event loop lags behind its timers, and a time limit that does not count the lag.

A process that gets no CPU time, or that a flood of packets keeps busy, handles answers late although they arrived in
time. A time limit on another host's answer, such as a probe's, must not count our own lag.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

TICK_S = 0.025
NEGLIGIBLE = 0.25
"""The share of a time limit below which lag does not extend it."""

LagClock = Callable[[], float]
"""Returns the seconds of lag so far, which grow only while the event loop lags."""


def no_lag() -> float:
    return 0.0


class LoopLag:
    """Measures by a timer that is due every ``TICK_S`` on the running event loop."""

    def __init__(self) -> None:
        self._total_s = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def measure(self, wanted: bool) -> None:
        """Start measuring if it is ``wanted`` and has not started, or else stop."""
        if not wanted:
            self.stop()
        elif self._timer is None:
            self._schedule()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def total_s(self) -> float:
        """Seconds of lag since the start, those of the present stall included."""
        return self._total_s + self._late_s()

    def _late_s(self) -> float:
        return max(0.0, time.monotonic() - self._due) if self._timer is not None else 0.0

    def _tick(self) -> None:
        self._total_s += self._late_s()
        self._schedule()

    def _schedule(self) -> None:
        self._due = time.monotonic() + TICK_S
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)


@contextlib.asynccontextmanager
async def responsive_timeout(seconds: float, lag_s: LagClock) -> AsyncIterator[None]:
    """Like ``asyncio.timeout``: raise TimeoutError after ``seconds`` and the lag that ``lag_s`` measured meanwhile.

    It always ends: one tick of each stall does not count as lag.
    """
    loop, counted_s, due = asyncio.get_running_loop(), lag_s(), time.monotonic() + seconds
    async with asyncio.timeout(None) as limit:

        def expire() -> None:
            nonlocal counted_s, due
            now, lagged_s = time.monotonic(), lag_s()
            more_s = max(lagged_s - counted_s, now - due)
            if more_s < NEGLIGIBLE * seconds:
                limit.reschedule(loop.time())
                return
            counted_s, due = lagged_s, now + more_s
            timers[0] = loop.call_later(more_s, expire)

        timers = [loop.call_later(seconds, expire)]
        try:
            yield
        finally:
            timers[0].cancel()
