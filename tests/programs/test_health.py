"""Backends that die, come back, are drained and disabled, behind a mux and agents as processes."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from lbmux.control.control_socket import ask
from lbmux.frames.xdp import detach
from lbmux.lab.lab import Lab
from lbmux.programs.health import FIRST_S

from .daemons import Daemon, Wire, running
from .slow_lab import DIPS, SERVER, VIPS, balanced

pytestmark = pytest.mark.root

INTERVAL_S, TIMEOUT_S, RISE, FALL, JITTER = 0.2, 0.1, 2, 3, 0.1
PROBES = {"interval_s": INTERVAL_S, "timeout_s": TIMEOUT_S, "rise": RISE, "fall": FALL, "jitter": JITTER}
OUT_S = (FALL + 2 * JITTER) * INTERVAL_S + TIMEOUT_S + 0.2
"""From the death of a backend to its state "down" at the latest; 0.2 s of it are for the test's own question."""


def web(**health: Any) -> dict[str, Any]:
    backends = [{"name": f"h{n}", "dip": DIPS[4].format(n), "port": SERVER["tcp"]} for n in (1, 2)]
    named = {"name": "web", "vip": VIPS[4], "protocol": "tcp", "port": 80, "backends": backends}
    return named | ({"health": PROBES | health} if health else {})


@contextlib.contextmanager
def server(lab: Lab, n: int) -> Iterator[None]:
    """On a host: says its number, then echoes."""

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
                threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()

    listener = lab.inside(f"host{n}", listen)
    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # close alone would leave it listening while accept waits
        listener.close()


def connect(lab: Lab) -> tuple[socket.socket, int]:
    """A new connection to the VIP, and the host that has it."""
    connection = lab.inside("client", lambda: socket.create_connection((VIPS[4], 80), timeout=3))
    return connection, int(connection.recv(1))


def hosts(lab: Lab, count: int = 30) -> set[int]:
    """Those that get one of some new connections, none of which fails."""
    found = set()
    for _ in range(count):
        connection, host = connect(lab)
        connection.close()
        found.add(host)
    return found


def states(mux: Daemon) -> dict[str, str]:
    return {line["backend"]: line["state"] for line in ask(mux.control, "health")["health"]}


def wait_until(mux: Daemon, backend: str, state: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while states(mux)[backend] != state:
        assert time.monotonic() < deadline, f"{states(mux)} after {seconds:.2f} s\n{mux.log}"
        time.sleep(0.01)


def rows(mux: Daemon) -> set[str]:
    """The backends in the tables."""
    return {line["backend"] for line in ask(mux.control, "backends")["backends"]}


def wait_for_rows(mux: Daemon, *names: str) -> None:
    deadline = time.monotonic() + 5
    while rows(mux) != set(names):
        assert time.monotonic() < deadline, mux.log
        time.sleep(0.01)


def tell(mux: Daemon, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "lbmux.cli.main", *words, "--control", str(mux.control)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("options", [(), ("--driver", "xdp", "--detach-on-exit")], ids=["packet", "xdp"])
def test_dead_backend_gets_no_connection_and_comes_back(lab: Lab, options: tuple[str, ...]) -> None:
    with server(lab, 2), balanced(lab, options=options, services=[web(kind="tcp")]) as mux:
        with server(lab, 1):
            wait_until(mux, "h1", "up", 5)
            wait_for_rows(mux, "h1", "h2")
            assert hosts(lab) == {1, 2}
        wait_until(mux, "h1", "down", OUT_S)
        wait_for_rows(mux, "h2")
        assert hosts(lab) == {2}
        (line,) = (one for one in ask(mux.control, "health")["health"] if one["backend"] == "h1")
        assert "refused" in line["reason"].lower() and line["since"]
        with server(lab, 1):
            wait_until(mux, "h1", "up", 5)
            wait_for_rows(mux, "h1", "h2")
            assert hosts(lab) == {1, 2}


@contextlib.contextmanager
def knocking(lab: Lab) -> Iterator[None]:
    """A client that opens connections all the time, whether anybody answers or not."""
    ended = threading.Event()

    def knock() -> None:
        while not ended.is_set():
            with socket.socket() as sock:
                sock.setblocking(False)
                sock.connect_ex((VIPS[4], 80))
            time.sleep(0.005)

    thread = threading.Thread(target=lambda: lab.inside("client", knock))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def tunnelled(wire: Wire) -> list[bytes]:
    """What came from a mux, of all that a host got until now."""
    return [frame for frame in wire.frames(1_000_000, 0.3) if frame[23] == socket.IPPROTO_IPIP]


def test_a_mux_that_starts_gives_a_dead_backend_nothing(lab: Lab) -> None:
    with server(lab, 2), Wire(lab, "host1") as first, Wire(lab, "host2") as second, knocking(lab):
        with balanced(lab, services=[web(kind="tcp", interval_s=1.0)]) as mux:
            assert states(mux) == {"h1": "down", "h2": "up"}
            time.sleep(0.5)
        assert tunnelled(second) and not tunnelled(first)


def test_a_mux_that_adopts_tables_does_not_bring_a_dead_backend_back(lab: Lab) -> None:
    """Its probes are slow, and the kernel forwards all the time."""
    configured, stays = [web(kind="tcp", interval_s=1.0)], ("--driver", "xdp")
    try:
        with server(lab, 2), knocking(lab):
            with balanced(lab, options=stays, services=configured) as mux:
                wait_for_rows(mux, "h2")
            with Wire(lab, "host1") as first, Wire(lab, "host2") as second:
                with running(lab, "mux1", "mux", *stays) as again:
                    assert ask(again.control, "runtime")["adopted"]
                    time.sleep(0.5)
                    assert states(again) == {"h1": "down", "h2": "up"}
                assert tunnelled(second) and not tunnelled(first)
            with server(lab, 1), running(lab, "mux1", "mux", *stays) as again:
                wait_until(again, "h1", "up", 5)
    finally:
        lab.inside("mux1", lambda: detach("eth0"))


def test_a_backend_that_never_answers_does_not_keep_a_mux_from_starting(lab: Lab) -> None:
    slow = web(kind="tcp", interval_s=30.0, timeout_s=30.0)
    with server(lab, 2), without_a_way(lab, 1):
        begun = time.monotonic()
        with balanced(lab, services=[slow]) as mux:
            assert time.monotonic() - begun > FIRST_S
            assert "1 backends not heard of within 3 s" in mux.log
            assert states(mux) == {"h1": "up", "h2": "up"}


def test_all_seem_dead_and_the_watermark_keeps_them(lab: Lab) -> None:
    with server(lab, 1), server(lab, 2), balanced(lab, services=[web(kind="tcp", port=9, watermark=0.5)]) as mux:
        wait_until(mux, "h1", "down", 5)
        wait_until(mux, "h2", "down", 5)
        assert hosts(lab) == {1, 2}
        assert all("kept" in line["reason"] for line in ask(mux.control, "health")["health"])


def to_host(lab: Lab, wanted: int) -> socket.socket:
    for _ in range(30):
        connection, host = connect(lab)
        if host == wanted:
            return connection
        connection.close()
    raise AssertionError(f"no connection to host {wanted}")


@contextlib.contextmanager
def without_a_way(lab: Lab, n: int) -> Iterator[None]:
    """A host that is gone, as its router sees it: what is for it is dropped in silence."""
    way = ["blackhole", f"{DIPS[4].format(n)}/32"]
    lab.run("router", ["ip", "route", "add", *way], check=True, timeout=10)
    try:
        yield
    finally:
        lab.run("router", ["ip", "route", "del", *way], check=True, timeout=10)


@pytest.mark.parametrize("kernel", [False, True])
def test_a_client_of_a_host_that_died_is_reset_with_its_next_packet(lab: Lab, kernel: bool) -> None:
    options = ("--driver", "xdp") if kernel else ()
    services = [web(kind="tcp")]
    with (
        server(lab, 1),
        server(lab, 2),
        balanced(lab, options=options, agent_options=options, services=services) as mux,
        to_host(lab, 1) as lost,
        to_host(lab, 2) as kept,
        without_a_way(lab, 1),
    ):
        wait_until(mux, "h1", "down", 5)
        wait_for_rows(mux, "h2")
        lost.sendall(b"anybody?")
        with pytest.raises(ConnectionResetError):
            lost.recv(100)  # which would wait for three seconds
        kept.sendall(b"still here")
        assert kept.recv(100) == b"still here"


def test_drained_backend_keeps_its_connections_over_a_restart(lab: Lab) -> None:
    idle = {"idle": {"closing_s": 1, "untrusted_s": 1, "trusted_s": 4}}
    with server(lab, 1), server(lab, 2), balanced(lab, services=[web() | idle]) as mux:
        kept = to_host(lab, 1)
        done = tell(mux, "drain", "h1")
        assert (done.returncode, done.stdout) == (0, "web/h1: draining: by command\n"), done.stderr
        assert hosts(lab) == {2}
        kept.sendall(b"still here")
        assert kept.recv(100) == b"still here"
        assert "is drained" not in mux.log
        kept.close()
        mux.wait_for("backend h1 of service web is drained: no flow left", 15)
        assert mux.end() == 0
        with running(lab, "mux1", "mux") as again:
            assert states(again) == {"h1": "draining", "h2": "up"}
            assert hosts(lab) == {2}
            assert tell(again, "enable", "h1").returncode == 0
            assert hosts(lab) == {1, 2}


def test_disabled_backend_is_out_at_once(lab: Lab) -> None:
    with server(lab, 1), server(lab, 2), balanced(lab, services=[web()]) as mux:
        assert tell(mux, "disable", "h2", "--service", "web").returncode == 0
        assert rows(mux) == {"h1"} and hosts(lab) == {1}
        shown = tell(mux, "show", "health").stdout.splitlines()
        assert any(line.split()[:5] == ["web", "h2", "disabled", "by", "command"] for line in shown), shown
        assert tell(mux, "enable", "h2").returncode == 0
        assert hosts(lab) == {1, 2}


def test_unknown_backend(lab: Lab) -> None:
    with balanced(lab, services=[web()]) as mux:
        done = tell(mux, "drain", "h9")
        assert done.returncode == 1 and "no backend h9" in done.stderr


@pytest.mark.skipif(find_spec("exabgp") is None, reason="ExaBGP is not installed")
def test_vip_without_backends_is_withdrawn_and_announced_again(lab: Lab) -> None:
    options = ("--bgp-peer", "10.0.1.1", "--bgp-withdraw-without-backends")

    def wait_for_prefixes(mux: Daemon, *wanted: str) -> None:
        deadline = time.monotonic() + 10
        while ask(mux.control, "bgp")["prefixes"] != list(wanted):
            assert time.monotonic() < deadline, mux.log
            time.sleep(0.02)

    with server(lab, 1), balanced(lab, options=options, services=[web(kind="tcp")]) as mux:
        wait_for_prefixes(mux, f"{VIPS[4]}/32")
        wait_for_rows(mux, "h1")  # nobody serves at the other
        assert tell(mux, "disable", "h1").returncode == 0
        wait_for_prefixes(mux)
        assert tell(mux, "enable", "h1").returncode == 0
        wait_for_prefixes(mux, f"{VIPS[4]}/32")
