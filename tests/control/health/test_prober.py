import asyncio

from lbmux.control.config import Config
from lbmux.control.health.effective import Key
from lbmux.control.health.prober import Prober

from .servers import stream_server


def configured(port: int) -> Config:
    health = {"kind": "tcp", "interval_s": 0.05, "timeout_s": 0.05, "jitter": 0.0}
    backends = [{"name": "b", "dip": "127.0.0.1", "port": port}]
    named = {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80}
    return Config(**{"services": [{**named, "health": health, "backends": backends}]})


def test_probes_again_and_again_until_the_backend_goes() -> None:
    async def run() -> None:
        results: asyncio.Queue[tuple[Key, bool, str]] = asyncio.Queue()
        async with stream_server(b"") as port, Prober(lambda *result: results.put_nowait(result)) as prober:
            prober.configure(configured(port))
            for _ in range(3):
                assert await asyncio.wait_for(results.get(), 5) == (("web", "b"), True, "connected")
            prober.configure(Config(services=()))
            await asyncio.sleep(0.2)
            assert results.qsize() <= 1  # one may have been under way

    asyncio.run(run())


def test_a_reload_that_changes_nothing_goes_on_with_the_same_probe() -> None:
    async def run() -> None:
        async with Prober(lambda *result: None) as prober:
            prober.configure(configured(9))
            before = asyncio.all_tasks()
            prober.configure(configured(9))
            assert asyncio.all_tasks() == before

    asyncio.run(run())
