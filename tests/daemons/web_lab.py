"""One TCP service on two hosts, whose servers come and go, behind a mux and agents as processes; and its clients."""

import contextlib
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.repeating import repeating
from lbmux.lab.lab import Lab
from tests.api.asking import ask
from tests.daemons.running_daemons import Daemon
from tests.daemons.slow_lab import DIPS, SERVER, VIPS
from tests.lbmux_command import lbmux

INTERVAL_S, TIMEOUT_S, RISE, FALL, JITTER = 0.2, 0.1, 2, 3, 0.1
PROBES = {"interval_s": INTERVAL_S, "timeout_s": TIMEOUT_S, "rise": RISE, "fall": FALL, "jitter": JITTER}
OUT_S = (FALL + 2 * JITTER) * INTERVAL_S + TIMEOUT_S + 0.2
"""Longest time from the death of a backend to its state "down", with 0.2 s for the test's own request."""
TRUSTED_S = 3
SHORT = {"idle": {"fin_s": 1, "untrusted_s": 1, "tcp_s": TRUSTED_S}}
DRIVERS = pytest.mark.parametrize("kernel", [False, True], ids=["packet", "xdp"])


def in_kernel(kernel: bool) -> dict[str, tuple[str, ...]]:
    options = ("--driver", "xdp", "--detach-on-exit") if kernel else ()
    return {"options": options, "agent_options": options}


def web(**health: Any) -> dict[str, Any]:
    backends = [{"name": f"h{n}", "dip": DIPS[4].format(n), "port": SERVER["tcp"]} for n in (1, 2)]
    named = {"name": "web", "vip": VIPS[4], "protocol": "tcp", "port": 80, "backends": backends}
    return named | ({"health": PROBES | health} if health else {})


@contextlib.contextmanager
def server(lab: Lab, n: int) -> Iterator[None]:
    """Run a server that sends its number, then echoes. No connection outlives it: the next agent would find it."""
    accepted: list[socket.socket] = []

    def listen() -> socket.socket:
        return socket.create_server((DIPS[4].format(n), SERVER["tcp"]))

    def echo(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"%d" % n)
            while data := connection.recv(4096):
                connection.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted.append(listener.accept()[0])
                threading.Thread(target=echo, args=(accepted[-1],), daemon=True).start()

    listener = lab.inside(f"host{n}", listen)
    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # close alone would leave it listening while accept waits
        listener.close()
        for connection in accepted:
            with contextlib.suppress(OSError):  # already closed
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def knocking(lab: Lab) -> Iterator[None]:
    """A client that opens connections all the time, whether it gets answers or not."""

    def knock() -> None:
        for _ in range(20):
            with socket.socket() as sock:
                sock.setblocking(False)
                sock.connect_ex((VIPS[4], 80))
            time.sleep(0.005)

    with repeating(lambda: lab.inside("client", knock)):
        yield


@contextlib.contextmanager
def without_a_way(lab: Lab, n: int) -> Iterator[None]:
    """A host that is gone, as its router sees it: what is for it is dropped in silence."""
    way = ["blackhole", f"{DIPS[4].format(n)}/32"]
    lab.run("router", ["ip", "route", "add", *way], check=True, timeout=10)
    try:
        yield
    finally:
        lab.run("router", ["ip", "route", "del", *way], check=True, timeout=10)


def connect(lab: Lab) -> tuple[socket.socket, int]:
    """A new connection to the VIP, and the host that has it."""
    connection = lab.inside("client", lambda: socket.create_connection((VIPS[4], 80), timeout=3))
    return connection, int(connection.recv(1))


def to_host(lab: Lab, wanted: int) -> socket.socket:
    for _ in range(30):
        connection, host = connect(lab)
        if host == wanted:
            return connection
        connection.close()
    raise AssertionError(f"no connection to host {wanted}")


def hosts(lab: Lab, count: int = 30) -> set[int]:
    """Those that get one of some new connections, none of which fails."""
    names = set()
    for _ in range(count):
        connection, host = connect(lab)
        connection.close()
        names.add(host)
    return names


def echo(connection: socket.socket, seconds: float = 0.0) -> None:
    """The connection lives, for some time."""
    deadline = time.monotonic() + seconds
    while True:
        connection.sendall(b"still here")
        assert connection.recv(100) == b"still here"
        if time.monotonic() >= deadline:
            return
        time.sleep(0.2)


def states(mux: Daemon) -> dict[str, str]:
    return {line["backend"]: line["state"] for line in ask(mux.control, "health")["health"]}


def line(control: Path, backend: str) -> dict[str, Any]:
    status: dict[str, Any] = next(one for one in ask(control, "health")["health"] if one["backend"] == backend)
    return status


def rows(control: Path) -> set[str]:
    """The backends in a daemon's tables."""
    return {line["backend"] for line in ask(control, "backends")["backends"]}


def wait(holds: Callable[[], bool], mux: Daemon, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, mux.log
        time.sleep(0.05)


def wait_until(mux: Daemon, backend: str, state: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while states(mux)[backend] != state:
        assert time.monotonic() < deadline, f"{states(mux)} after {seconds:.2f} s\n{mux.log}"
        time.sleep(0.01)


def wait_for_rows(mux: Daemon, *names: str) -> None:
    deadline = time.monotonic() + 20
    while rows(mux.control) != set(names):
        assert time.monotonic() < deadline, mux.log
        time.sleep(0.01)


def tell(mux: Daemon, *words: str) -> "subprocess.CompletedProcess[str]":
    return lbmux(*words, "--control", str(mux.control))


def agent(lab: Lab, n: int) -> Path:
    """Its control socket."""
    return lab.directory / f"host{n}-test.sock"
