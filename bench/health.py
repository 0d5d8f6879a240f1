"""What probes cost: backends that are each probed by a TCP connection once a second, as CPU time of the prober."""

import asyncio
import contextlib
import socket
import threading
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from bench.report import Result
from lbmux.control.config import Config
from lbmux.control.health.lives import Lives
from lbmux.control.health.prober import Prober

BACKENDS = 1000
WARM_UP_S, MEASURED_S = 2.0, 10.0


def run() -> list[Result]:
    """The servers are another process, as they are other machines in life: their time is not the prober's."""
    mine, theirs = get_context("spawn").Pipe()
    server = get_context("spawn").Process(target=_server, args=(theirs,), daemon=True)
    server.start()
    try:
        cores, rate, failed = uvloop.run(_measure(mine.recv()))
    finally:
        mine.close()
        server.terminate()
        server.join()
    note = f"{rate:.0f} probes/s in {MEASURED_S:.0f} s, {failed} failed"
    return [Result("health", f"CPU of {BACKENDS} TCP probes a second", cores, "cores", goal="<= 0.25", note=note)]


def _server(to_parent: Connection) -> None:
    listener = socket.create_server(("0.0.0.0", 0), backlog=4096)  # noqa: S104 -- all of 127/8 is behind it
    to_parent.send(listener.getsockname()[1])

    def until_parent_ends() -> None:
        with contextlib.suppress(EOFError, OSError):
            to_parent.recv()
        listener.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=until_parent_ends, daemon=True).start()
    with contextlib.suppress(OSError):
        while True:
            listener.accept()[0].close()


async def _measure(port: int) -> tuple[float, float, int]:
    """(cores, probes a second, probes that failed)"""
    health = {"kind": "tcp", "interval_s": 1.0}
    backends = [{"dip": f"127.1.{n // 250}.{n % 250 + 1}", "port": port} for n in range(BACKENDS)]
    service = {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80, "health": health}
    config = Config.model_validate({"maglev": {"size": 131071}, "services": [service | {"backends": backends}]})
    results: list[bool] = []
    with TemporaryDirectory() as directory:
        lives = Lives(Path(directory) / "orders")
        lives.configure(config)

        def heard(key: tuple[str, str], healthy: bool, reason: str) -> None:
            lives.heard(key, healthy, reason)
            results.append(healthy)

        async with Prober(heard) as prober:
            prober.configure(config)
            await asyncio.sleep(WARM_UP_S)
            results.clear()
            cpu, wall = time.process_time(), time.monotonic()
            await asyncio.sleep(MEASURED_S)
            cpu, wall = time.process_time() - cpu, time.monotonic() - wall
            return cpu / wall, len(results) / wall, results.count(False)
