import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from lbmux.config.models import Backend
from lbmux.health.load import LoadMeter

CPUS = os.cpu_count() or 1
KEY = ("web", "b1")


def stat(path: Path, busy: int, idle: int, running: int) -> Path:
    """Write a file like /proc/stat: user, nice, system, idle, I/O wait, interrupts, soft interrupts, stolen, guest."""
    path.write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 {busy} 0\ncpu0 1 2 3\nprocs_running {running}\n")
    return path


@contextlib.contextmanager
def waiting(address: str, count: int) -> Iterator[int]:
    """Yield the port of a server that has not accepted this many connections."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server((address, 0), family=family, backlog=16))
        to = "127.0.0.1" if family == socket.AF_INET else "::1"
        for _ in range(count):
            stack.enter_context(socket.create_connection((to, server.getsockname()[1])))
        yield server.getsockname()[1]


def until(holds: Callable[[], bool]) -> None:
    """Wait: the kernel may be busy with the last packets of the connections."""
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def backend(port: int, dip: str) -> dict[tuple[str, str], Backend]:
    return {KEY: Backend.model_construct(dip=ip_address(dip), port=port)}


def test_cpu_time_is_that_since_the_first_sample(tmp_path: Path) -> None:
    load_meter = LoadMeter(stat(tmp_path / "stat", 1000, 1000, 1))
    load_meter.sample(backend(1, "127.0.0.1"))
    stat(tmp_path / "stat", 1060, 1040, 1)
    assert load_meter.take()[KEY] == (0.6, 0, 0)


def test_tasks_beyond_the_cpus_wait(tmp_path: Path) -> None:
    load_meter = LoadMeter(stat(tmp_path / "stat", 1, 1, CPUS + 1))
    load_meter.sample(backend(1, "127.0.0.1"))  # the meter itself runs, too
    stat(tmp_path / "stat", 1, 1, 3 * CPUS + 1)
    load_meter.sample(backend(1, "127.0.0.1"))
    assert load_meter.take()[KEY].run_queue == 1
    assert load_meter.take() == {}


@pytest.mark.parametrize(("listens_at", "dip"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "::1")])
def test_connections_wait_to_be_accepted(listens_at: str, dip: str) -> None:
    load_meter = LoadMeter()

    def accept_queue(port: int, dip: str) -> float:
        load_meter.sample(backend(port, dip))
        return load_meter.take()[KEY].accept_queue

    with waiting(listens_at, 3) as port:
        until(lambda: accept_queue(port, dip) == 3)
        assert accept_queue(port, "127.0.0.9") == (3 if listens_at == "0.0.0.0" else 0)
