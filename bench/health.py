"""The cost of health probes: the prober's CPU time while it probes each backend with a TCP connection once a second.

For probes through the tunnel a whole mux probes two lab hosts at the same rate, directly and through the tunnel. The
figure is the mux's CPU time.
"""

import asyncio
import contextlib
import dataclasses
import os
import socket
import threading
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop

from bench.live import LAB
from bench.loopback import at_loopback
from bench.report import Result
from lbmux.backends.tracker import BackendTracker
from lbmux.config.models import Config
from lbmux.health.prober import Prober
from lbmux.lab.lab import Lab
from lbmux.lab.topology import SERVER_PORT, VIP, ananta

BACKENDS = 1000
WARM_UP_S, MEASURED_S = 2.0, 10.0


def run() -> list[Result]:
    cores, rate, failed = prober()
    note = f"{rate:.0f} probes/s in {MEASURED_S:.0f} s, {failed} failed"
    straight, through = _mux("direct"), _mux("tunnel")
    name = f"CPU of a mux that makes {BACKENDS} TCP probes a second"
    notes = [f"{rate:.0f} connections/s at the hosts; the lab's network is in it" for _, rate in (straight, through)]
    return [
        Result("health", f"CPU of {BACKENDS} TCP probes a second", cores, "cores", goal="<= 0.25", note=note),
        Result("health", f"{name}, straight", straight[0], "cores", note=notes[0]),
        Result("health", f"{name}, through the tunnel", through[0], "cores", "straight", through[0] / straight[0],
               note=notes[1]),
    ]  # fmt: skip


def prober() -> tuple[float, float, int]:
    """Return (cores, probes per second, failed probes).

    The servers run in another process, so that their CPU time is not counted.
    """
    mine, theirs = get_context("spawn").Pipe()
    server = get_context("spawn").Process(target=_server, args=(theirs,), daemon=True)
    server.start()
    try:
        return uvloop.run(_measure(mine.recv()))
    finally:
        mine.close()
        server.terminate()
        server.join()


def _mux(through: str) -> tuple[float, float]:
    """Return (cores that the mux uses, connections per second that the hosts accept)."""
    names, interval_s = ("h1", "h2"), 0.05
    health = {"kind": "tcp", "through": through, "interval_s": interval_s, "timeout_s": interval_s}
    backends = [{"name": name, "dip": f"10.1.{n}.2", "port": SERVER_PORT} for n, name in enumerate(names, 1)]
    service = {"vip": VIP, "protocol": "tcp", "health": health, "backends": backends}
    count = int(BACKENDS * interval_s / len(names))
    services = [service | {"name": f"web{n}", "port": 9000 + n} for n in range(count)]
    pool = ananta(mux_count=1)
    lab = Lab(dataclasses.replace(pool, config=pool.config | {"services": services}), LAB)
    lab.up()
    try:
        pid = lab.process("mux1", "mux").pid
        time.sleep(WARM_UP_S)
        cpu, accepted, begun = cpu_s(pid), _accepted(lab), time.monotonic()
        time.sleep(MEASURED_S)
        wall = time.monotonic() - begun
        return (cpu_s(pid) - cpu) / wall, (_accepted(lab) - accepted) / wall
    finally:
        lab.down()


def cpu_s(pid: int) -> float:
    """Return the user and system time of a process, in seconds (proc(5))."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _accepted(lab: Lab) -> int:
    """Return how many connections hosts 1 and 2 have accepted."""

    def passive_opens() -> int:
        names, values = (
            line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines() if line[:4] == "Tcp:"
        )
        return int(values[names.index("PassiveOpens")])

    return sum(lab.inside(f"host{n}", passive_opens) for n in (1, 2))


def _server(to_parent: Connection) -> None:
    listener = socket.create_server(("0.0.0.0", 0), backlog=4096)  # all of 127/8 reaches it
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
    health = {"kind": "tcp", "interval_s": 1.0}
    backends = [{"dip": f"10.1.{n // 250}.{n % 250 + 1}", "port": port} for n in range(BACKENDS)]
    service = {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80, "health": health}
    valid = Config.model_validate({"maglev": {"size": 131071}, "services": [service | {"backends": backends}]})
    config = at_loopback(valid)
    results: list[bool] = []
    tracker = BackendTracker()
    tracker.configure(config)

    def on_result(key: tuple[str, str], healthy: bool, reason: str) -> None:
        tracker.record(key, healthy, reason)
        results.append(healthy)

    async with Prober(on_result) as prober:
        prober.configure(config)
        await asyncio.sleep(WARM_UP_S)
        results.clear()
        cpu, wall = time.process_time(), time.monotonic()
        await asyncio.sleep(MEASURED_S)
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        return cpu / wall, len(results) / wall, results.count(False)
