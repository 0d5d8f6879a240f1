"""A time limit that does not count the lag of its own event loop."""

import asyncio
import time
from ipaddress import ip_address

import pytest

from lbmux.config.health_models import Health
from lbmux.health.loop_lag import LoopLag, no_lag, responsive_timeout
from lbmux.health.probe import Target, attempt
from tests.health.servers import stream_server

LIMIT_S = 0.2


def test_without_lag_the_limit_is_the_limit() -> None:
    async def run() -> float:
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            async with responsive_timeout(LIMIT_S, no_lag):
                await asyncio.sleep(60)
        return time.monotonic() - begun

    assert asyncio.run(run()) >= 0.9 * LIMIT_S


def test_the_time_of_a_lag_is_given_back() -> None:
    lags = iter([10.0, 11.0, 11.0])  # at the start, at the limit, and at the later one

    async def run() -> float:
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            async with responsive_timeout(LIMIT_S, lambda: next(lags, 11.0)):
                await asyncio.sleep(60)
        return time.monotonic() - begun

    assert asyncio.run(run()) >= 0.9 * (LIMIT_S + 1)


def test_a_lag_is_measured_while_it_lasts_and_afterwards() -> None:
    async def run() -> tuple[float, float]:
        lag = LoopLag()
        lag.measure(True)
        await asyncio.sleep(0)
        time.sleep(0.5)
        during_s = lag.total_s()
        await asyncio.sleep(0.1)
        lag.stop()
        return during_s, lag.total_s()

    during_s, after_s = asyncio.run(run())
    assert 0.4 < during_s <= after_s


def test_an_unmeasured_loop_does_not_lag() -> None:
    lag = LoopLag()
    lag.measure(False)
    assert lag.total_s() == 0


def test_an_answer_that_came_while_the_prober_was_busy_counts() -> None:
    """The whole time passes while the event loop does not run; the answer waits to be read by then."""

    async def run() -> tuple[bool, str]:
        lag, loop = LoopLag(), asyncio.get_running_loop()
        lag.measure(True)
        async with stream_server(b"") as port:
            health = Health(kind="tcp", timeout_s=LIMIT_S, interval_s=1.0)
            probe = asyncio.create_task(
                attempt(slow_connect, Target(ip_address("127.0.0.1"), port, health), lag.total_s)
            )
            loop.call_later(LIMIT_S / 4, time.sleep, 3 * LIMIT_S)
            return await probe

    async def slow_connect(target: Target) -> str:
        await asyncio.sleep(LIMIT_S / 2)
        _, writer = await asyncio.open_connection(str(target.dip), target.port)
        writer.close()
        return "connected"

    assert asyncio.run(run()) == (True, "connected")
