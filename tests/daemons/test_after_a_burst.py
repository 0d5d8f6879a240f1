"""After an attack on a mux's slow path, CPU time, counters and request times return to normal."""

import contextlib
import os
import socket
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from lbmux.lab.lab import Lab
from tests.api.asking import ask
from tests.daemons.attack_packets import about_hosts, about_invented_hosts, mid_connection, returned
from tests.daemons.running_daemons import READY, START_S, Daemon, started
from tests.daemons.slow_lab import PORT, VIPS, client_socket, configuration, served, to_one_mux

pytestmark = pytest.mark.root
ATTACKS = ("returned_", "unknown_", "outer_error_", "path_mtu_", "over_")
"""The counters that the packets of this test raise."""
BURSTS = (("client", mid_connection), ("client", about_invented_hosts), ("client", about_hosts), ("host1", returned))
WINDOW_S, AFTER_S = 5.0, 5.0
MOST_CPU_S = 0.02 * WINDOW_S
SLOWER = 1.2
PATIENCE_S = 60.0
"""Other tests may slow requests down for a while; a lasting effect of a burst would do so until the end."""


def cpu_s(daemons: list[Daemon]) -> list[float]:
    fields = [Path(f"/proc/{one.process.pid}/stat").read_text().rpartition(")")[2].split() for one in daemons]
    return [(int(one[11]) + int(one[12])) / os.sysconf("SC_CLK_TCK") for one in fields]


def counted(daemons: list[Daemon]) -> list[dict[str, int]]:
    counts = [ask(one.control, "counters")["slowpath"] for one in daemons]
    return [{name: value for name, value in one.items() if name.startswith(ATTACKS)} for one in counts]


def used_s(daemons: list[Daemon]) -> list[float]:
    """Each daemon's CPU time over a window."""
    before = cpu_s(daemons)
    time.sleep(WINDOW_S)
    return [after - then for then, after in zip(before, cpu_s(daemons), strict=True)]


def request_s(lab: Lab, family: int) -> float:
    """The median of some requests, each by a connection of its own, after as many that warm caches up."""
    took = []
    for _ in range(80):
        with client_socket(lab, family, "tcp") as client:
            begun = time.monotonic()
            client.connect((VIPS[family], PORT["tcp"]))
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            took.append(time.monotonic() - begun)
    return statistics.median(took[40:])


def as_quick_as(lab: Lab, family: int, usual_s: float) -> None:
    """Measure until requests take as long as usual; at once, unless other tests load the machine."""
    deadline, medians = time.monotonic() + PATIENCE_S, list[float]()
    while True:
        medians.append(request_s(lab, family))
        print(f"median request, IPv{family}: {usual_s * 1e3:.2f} ms before, {medians[-1] * 1e3:.2f} ms after")
        if medians[-1] <= SLOWER * usual_s:
            return
        assert time.monotonic() < deadline, (usual_s, medians)


def echo(sock: socket.socket, host: int) -> None:
    while True:
        connection, _ = sock.accept()
        with connection:
            connection.sendall(connection.recv(1))


def send(lab: Lab, node: str, family: int, packets: list[bytes]) -> None:
    kind, to = (socket.AF_INET, slice(16, 20)) if family == 4 else (socket.AF_INET6, slice(24, 40))

    def work() -> None:
        with socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            for at, packet in enumerate(packets):
                sock.sendto(packet, (str(ip_address(packet[to])), 0))
                if at % 50 == 49:
                    time.sleep(0.015)  # about 3000 a second

    lab.inside(node, work)


def wait_for_the_end(daemons: list[Daemon]) -> None:
    """Wait until the last packet of the bursts has been handled: on a busy machine many wait in queues."""
    deadline, before = time.monotonic() + START_S, list[dict[str, int]]()
    while True:
        now = counted(daemons)
        met = Counter(now[0])
        if all((met["outer_error_ignored"] >= 1500, met["returned_reset"] >= 100, met["returned_ttl"], now == before)):
            return
        assert time.monotonic() < deadline, now
        before = now
        time.sleep(0.5)


@contextlib.contextmanager
def pool(lab: Lab, options: list[tuple[str, ...]]) -> Iterator[list[Daemon]]:
    """A mux and two agents, with servers of both families."""
    lab.write_config(configuration())
    to_one_mux(lab)
    with (
        served(lab, 4, "tcp", echo),
        served(lab, 6, "tcp", echo),
        started(lab, "mux1", "mux", *options[0]) as mux,
        started(lab, "host1", "agent", *options[1]) as one,
        started(lab, "host2", "agent", *options[1]) as two,
    ):
        daemons = [mux, one, two]
        for daemon in daemons:
            daemon.wait_for(READY[daemon.program], START_S)
        yield daemons


@pytest.mark.parametrize("driver", [("packet", "tun"), ("xdp", "xdp")], ids=["user space", "kernel"])
def test_five_seconds_after_a_burst_no_trace_remains(lab: Lab, driver: tuple[str, str]) -> None:
    options = [("--driver", name, *(["--detach-on-exit"] if name == "xdp" else [])) for name in driver]
    with pool(lab, options) as daemons:
        before_s = {family: request_s(lab, family) for family in VIPS}
        usual = used_s(daemons)
        for family in VIPS:
            for node, packets in BURSTS:
                send(lab, node, family, list(packets(family)))
        wait_for_the_end(daemons)
        time.sleep(AFTER_S)
        counters, later = counted(daemons), used_s(daemons)
        assert counted(daemons) == counters
        assert "mtu" not in lab.run("mux1", ["ip", "route", "show", "cache"], capture_output=True, text=True).stdout
        print(f"CPU over {WINDOW_S:.0f} s: {usual} before, {later} after; {counters[0]}")
        assert all(after < before + MOST_CPU_S for before, after in zip(usual, later, strict=True)), (usual, later)
        for family in VIPS:
            as_quick_as(lab, family, before_s[family])
