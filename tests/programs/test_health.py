"""Backends that die, come back, are drained and disabled, behind a mux and agents as processes."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lbmux.control.control_socket import ask
from lbmux.frames.xdp import detach
from lbmux.lab.lab import Lab
from lbmux.programs.health import FIRST_S

from .daemons import Daemon, Wire, running
from .slow_lab import DIPS, SERVER, VIPS, balanced, configuration

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


def agent(lab: Lab, n: int) -> Path:
    """Its control socket."""
    return lab.directory / f"host{n}-test.sock"


def line(control: Path, backend: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in ask(control, "health")["health"] if one["backend"] == backend)
    return found


def echo(connection: socket.socket, seconds: float = 0.0) -> None:
    """The connection lives, for some time."""
    deadline = time.monotonic() + seconds
    while True:
        connection.sendall(b"still here")
        assert connection.recv(100) == b"still here"
        if time.monotonic() >= deadline:
            return
        time.sleep(0.2)


def wait(holds: Callable[[], bool], mux: Daemon, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, mux.log
        time.sleep(0.05)


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


@pytest.mark.parametrize("kernel", [False, True], ids=["packet", "xdp"])
def test_by_rehash_another_host_gets_what_a_dead_ones_clients_send(lab: Lab, kernel: bool) -> None:
    """And answers for itself: its kernel resets what it does not know, and no connection is taken from anybody."""
    options = ("--driver", "xdp") if kernel else ()
    services = [web(kind="tcp") | {"on_down": "rehash"}]
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
        with Wire(lab, "host2") as wire:
            lost.sendall(b"anybody?")
            assert any(b"anybody?" in frame for frame in wire.frames(100, 0.5))
        with pytest.raises(ConnectionResetError):
            lost.recv(100)
        kept.sendall(b"still here")
        assert kept.recv(100) == b"still here"
        counts = ask(mux.control, "counters")["slowpath"]
        assert not counts.get("returned_reset"), "that reset was the host's, not the mux's"


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


TRUSTED_S = 3
SHORT = {"idle": {"closing_s": 1, "untrusted_s": 1, "trusted_s": TRUSTED_S}}
DRIVERS = pytest.mark.parametrize("kernel", [False, True], ids=["user space", "kernel"])


def in_kernel(kernel: bool) -> dict[str, tuple[str, ...]]:
    options = ("--driver", "xdp", "--detach-on-exit") if kernel else ()
    return {"options": options, "agent_options": options}


def in_tables(control: Path) -> set[str]:
    return {one["backend"] for one in ask(control, "backends")["backends"]}


@DRIVERS
@pytest.mark.parametrize("how", ["by command", "by configuration"])
def test_removed_backend_keeps_its_connections_and_goes_with_the_last(lab: Lab, kernel: bool, how: str) -> None:
    both = web() | SHORT
    with server(lab, 1), server(lab, 2), balanced(lab, services=[both], **in_kernel(kernel)) as mux:
        kept, why = to_host(lab, 1), "no longer in the configuration"
        if how == "by command":
            why = "removed by command"
            done = tell(mux, "remove", "h1", "--control", str(agent(lab, 1)))
            assert done.stdout.splitlines() == [
                f"{agent(lab, 1)}: web/h1: leaving: {why}", f"{mux.control}: web/h1: leaving: {why}"
            ], done.stderr  # fmt: skip
        else:
            lab.write_config(configuration(services=[both | {"backends": both["backends"][1:]}]))
            said = tell(mux, "config", "diff", str(lab.config)).stdout.splitlines()
            assert said[0].startswith("service web: changed: ") and said[1] == "  backend h1: removed"
            assert " 0 move (0.0%); " in said[-1] and said[-1].endswith(" stay with backends that leave")
            for control in (agent(lab, 1), agent(lab, 2), mux.control):
                ask(control, "reload")
        for control in (agent(lab, 1), mux.control):
            found = line(control, "h1")
            assert (found["state"], found["reason"], found["drained"]) == ("leaving", why, False)
            assert found["since"]
        assert hosts(lab) == {2}
        echo(kept, TRUSTED_S + 2)
        assert in_tables(mux.control) == {"h1", "h2"} and in_tables(agent(lab, 1)) == {"h1"}
        kept.close()
        wait(lambda: in_tables(mux.control) == {"h2"}, mux)
        wait(lambda: not in_tables(agent(lab, 1)), mux)
        mux.wait_for("backend h1 of service web has left")
        assert states(mux) == ({"h1": "removed", "h2": "up"} if how == "by command" else {"h2": "up"})
        assert hosts(lab) == {2}


def test_removed_backend_is_taken_back_while_it_leaves_and_after(lab: Lab) -> None:
    with server(lab, 1), server(lab, 2), balanced(lab, services=[web() | SHORT]) as mux, to_host(lab, 1) as kept:
        where = ("--control", str(agent(lab, 1)))
        assert tell(mux, "remove", "h1", *where).returncode == 0
        assert hosts(lab) == {2}
        assert tell(mux, "enable", "h1", *where).returncode == 0
        assert hosts(lab) == {1, 2}
        echo(kept)
        tell(mux, "remove", "h1", *where)
        assert tell(mux, "disable", "h1").stdout == "web/h1: removed: by command\n"  # not waited for
        assert in_tables(mux.control) == {"h2"}
        assert tell(mux, "enable", "h1", *where).returncode == 0
        assert hosts(lab) == {1, 2}


def test_backend_that_dies_while_it_leaves_is_gone(lab: Lab) -> None:
    with server(lab, 2), balanced(lab, services=[web(kind="tcp") | SHORT]) as mux:
        with server(lab, 1):
            wait_until(mux, "h1", "up", 5)
            wait_for_rows(mux, "h1", "h2")
            kept = to_host(lab, 1)
            assert tell(mux, "remove", "h1").returncode == 0
            assert states(mux)["h1"] == "leaving"
            echo(kept)
        wait_until(mux, "h1", "removed", OUT_S + 2)
        assert in_tables(mux.control) == {"h2"}


@DRIVERS
def test_leaving_backend_keeps_its_connections_over_a_restart_of_the_mux(lab: Lab, kernel: bool) -> None:
    options = ("--driver", "xdp") if kernel else ()
    with server(lab, 1), server(lab, 2), balanced(lab, options=options, services=[web() | SHORT]) as mux:
        kept = to_host(lab, 1)
        assert tell(mux, "remove", "h1").returncode == 0
        assert mux.end() == 0
        with running(lab, "mux1", "mux", *in_kernel(kernel)["options"]) as again:
            assert line(again.control, "h1")["state"] == "leaving"
            echo(kept)
            assert hosts(lab) == {2}
            kept.close()
            wait(lambda: in_tables(again.control) == {"h2"}, again)


@DRIVERS
def test_backend_is_added_weighed_and_removed_by_command(lab: Lab, kernel: bool) -> None:
    both = web() | SHORT
    one = both | {"backends": both["backends"][:1]}
    with server(lab, 1), server(lab, 2), balanced(lab, services=[one], **in_kernel(kernel)) as mux:
        assert hosts(lab) == {1}
        where = ("--control", str(agent(lab, 2)))
        done = tell(mux, "add", "web", f"{DIPS[4].format(2)}:{SERVER['tcp']}", "--name", "h2", "--weight", "3", *where)
        assert done.stdout.splitlines() == [
            f"{agent(lab, 2)}: web/h2: up: not probed; added by command",
            f"{mux.control}: web/h2: up: not probed; added by command",
        ], done.stderr  # fmt: skip
        assert hosts(lab) == {1, 2}
        ask(mux.control, "reload")
        ask(agent(lab, 2), "reload")
        assert hosts(lab) == {1, 2}
        assert tell(mux, "weight", "h1", "0").stdout == "web/h1: draining: weight 0 by command\n"
        assert hosts(lab) == {2}
        assert mux.end() == 0
        with running(lab, "mux1", "mux", *in_kernel(kernel)["options"]) as again:
            assert hosts(lab) == {2}
            wait(lambda: bool(line(again.control, "h1")["drained"]), again)
            assert tell(again, "weight", "h1").stdout == "web/h1: up: not probed\n"
            assert hosts(lab) == {1, 2}
            assert not line(again.control, "h1")["drained"]
            assert tell(again, "remove", "h2", *where).returncode == 0
            assert hosts(lab) == {1}
            wait(lambda: in_tables(again.control) == {"h1"} and not in_tables(agent(lab, 2)), again)
            assert states(again) == {"h1": "up"}


def test_what_cannot_be_ordered_says_why_and_changes_nothing(lab: Lab) -> None:
    with balanced(lab, services=[web()]) as mux:
        refused = {
            ("add", "mail", "10.1.3.2"): "mail: there is no such service",
            ("add", "web", "10.1.3.2", "--name", "h1"): "another backend has the name h1",
            ("add", "web", "10.1.2.2:81"): "cannot be told apart",
            ("add", "web", "2001:db8::1"): "is IPv6, and the VIP is IPv4",
            ("add", "web", "10.1.3.2:99999"): "web: port: ",
            ("weight", "h9", "3"): "no backend h9",
        }
        for words, why in refused.items():
            done = tell(mux, *words)
            assert done.returncode == 1 and why in done.stderr, done
        done = tell(mux, "drain", "h1", "--control", str(agent(lab, 1)))
        assert done.returncode == 1 and "drain: is for muxes" in done.stderr
        assert done.stdout == f"{mux.control}: web/h1: draining: by command\n"  # told all the same
        assert states(mux) == {"h1": "draining", "h2": "up"}


def test_drained_by_configuration_says_so(lab: Lab) -> None:
    both = web() | SHORT
    with server(lab, 1), server(lab, 2), balanced(lab, services=[both]) as mux:
        kept = to_host(lab, 1)
        assert not line(mux.control, "h1")["drained"]
        first, second = both["backends"]
        lab.write_config(configuration(services=[both | {"backends": [first | {"weight": 0}, second]}]))
        ask(mux.control, "reload")
        assert hosts(lab) == {2}
        echo(kept, 1.5)
        found = line(mux.control, "h1")
        assert (found["state"], found["reason"]) == ("draining", "weight 0 in the configuration")
        assert not found["drained"]
        kept.close()
        wait(lambda: bool(line(mux.control, "h1")["drained"]), mux)
        assert not line(mux.control, "h2")["drained"]


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
