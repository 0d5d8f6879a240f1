import asyncio
import itertools
import selectors
import time
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.loopback import at_loopback
from lbmux.backends.tracker import BackendTracker
from lbmux.config.models import BackendKey, Config
from lbmux.health import loop_lag
from lbmux.health import prober as prober_module
from lbmux.health.probe import Target
from lbmux.health.probe_kinds import KINDS
from lbmux.health.prober import Prober
from tests.health.servers import stream_server

MANY = 1000


def configured(port: int, count: int = 1, **health: Any) -> Config:
    probes = {"kind": "tcp", "interval_s": 0.05, "timeout_s": 0.05, "jitter": 0.0} | health
    backends = [{"name": f"b{n or ''}", "dip": str(IPv4Address("10.0.0.1") + n), "port": port} for n in range(count)]
    named = {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80}
    return at_loopback(Config(**{"services": [{**named, "health": probes, "backends": backends}]}))


def test_probes_again_and_again_until_the_backend_goes() -> None:
    async def run() -> None:
        results: asyncio.Queue[tuple[BackendKey, bool, str]] = asyncio.Queue()
        async with stream_server(b"") as port, Prober(lambda *result: results.put_nowait(result)) as prober:
            prober.configure(configured(port))
            for _ in range(3):
                assert await asyncio.wait_for(results.get(), 5) == (("web", "b"), True, "connected")
            prober.configure(Config(services=()))
            await asyncio.sleep(0.2)
            assert results.qsize() <= 1  # one probe may have been in flight

    asyncio.run(run())


def test_a_reload_without_changes_keeps_the_same_probe() -> None:
    async def run() -> None:
        async with Prober(lambda *result: None) as prober:
            prober.configure(configured(9))
            before = asyncio.all_tasks()
            prober.configure(configured(9))
            assert asyncio.all_tasks() == before

    asyncio.run(run())


class SkippingSelector(selectors.SelectSelector):
    """Waits for nothing: when the loop would wait, its clock jumps."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now_s += timeout or 0.0
        return super().select(0)


@pytest.fixture
def loop_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lag of an event loop is measured by its own clock: that this process waits for a CPU is not lag."""
    clock = SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time())
    monkeypatch.setattr(loop_lag, "time", clock)


class SkippingLoop(asyncio.SelectorEventLoop):
    """Tasks take no time but what they sleep, however busy the machine is."""

    def __init__(self) -> None:
        self._clock = SkippingSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now_s


@pytest.mark.slow
def test_a_thousand_that_fall_silent_are_down_in_time_and_have_one_connection_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop_clock: None
) -> None:
    """Default settings. All had answered before, so each waits for its usual probes."""
    under_way = most = 0
    silent_since = float("inf")

    async def kind(target: Target) -> str:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            await asyncio.sleep(60 if asyncio.get_running_loop().time() > silent_since else 0)
        finally:
            under_way -= 1
        return "answered"

    async def run() -> float:
        nonlocal silent_since
        config = configured(9, MANY, interval_s=1.0, timeout_s=0.5, jitter=0.1)
        tracker, settled, down = BackendTracker(tmp_path / "orders"), asyncio.Event(), asyncio.Event()
        tracker.configure(config)

        def record(key: BackendKey, healthy: bool, reason: str) -> None:
            if tracker.record(key, healthy, reason) and len(tracker.down) == MANY:
                down.set()
            if not settled.is_set() and not tracker.unprobed():
                settled.set()

        async with Prober(record, is_known=tracker.was_probed) as prober:
            prober.configure(config)
            await asyncio.wait_for(settled.wait(), 10)
            silent_since = asyncio.get_running_loop().time()
            await asyncio.wait_for(down.wait(), 20)
            return asyncio.get_running_loop().time() - silent_since

    monkeypatch.setitem(KINDS, "tcp", kind)  # type: ignore[arg-type]
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        assert runner.run(run()) < 3 * 1.0 + 3 * 0.1 + 0.5, "fall, its jitter, and a time-out"
    assert most <= MANY


def test_a_new_backend_is_settled_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> list[bool]:
        results: list[bool] = []

        def is_known(key: BackendKey) -> bool:
            return len(results) >= 3

        async with Prober(lambda key, healthy, reason: results.append(healthy), is_known=is_known) as prober:
            prober.configure(configured(9, interval_s=60.0))
            async with asyncio.timeout(5):
                while len(results) < 3:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            return results

    monkeypatch.setattr(prober_module.random, "uniform", lambda low, high: high)  # the next one is due in a minute
    assert asyncio.run(run()) == [False, False, False]


def test_probes_are_spread_by_the_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier and later by turns: the gaps are then of twice the interval's, and of none."""
    interval_s, times = 0.2, list[float]()

    async def run() -> None:
        async with Prober(lambda *result: times.append(time.monotonic())) as prober:
            prober.configure(configured(9, interval_s=interval_s, jitter=0.5))
            async with asyncio.timeout(10):
                while len(times) < 5:
                    await asyncio.sleep(0.01)

    turns = itertools.cycle([-1, 1])
    monkeypatch.setattr(prober_module.random, "uniform", lambda low, high: next(turns) if low == -1 else low)
    asyncio.run(run())
    gaps = sorted(after - before for before, after in itertools.pairwise(times))
    assert gaps[0] < 0.5 * interval_s and gaps[-1] > 1.5 * interval_s
