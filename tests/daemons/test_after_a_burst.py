"""Attacks on a mux's slow path end when their packets do: CPU time, counters and requests are then as before."""

import os
import socket
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.packet import Raw

from lbmux.lab.lab import Lab
from lbmux.lab.scoreboard.flood import acknowledgments
from tests.api.asking import ask
from tests.daemons.running_daemons import READY, START_S, Daemon, started
from tests.daemons.slow_lab import CLIENT, HOSTS, PORT, VIPS, client_socket, configuration, served, to_one_mux

pytestmark = pytest.mark.root
MUX = "10.0.1.2"
ATTACKS = ("returned_", "unknown_", "outer_error_", "path_mtu_", "over_")
"""Counters of what the packets here come to."""
WINDOW_S, AFTER_S = 5.0, 5.0
MOST_CPU_S = 0.02 * WINDOW_S


def acks() -> Iterator[bytes]:
    yield from acknowledgments(ip_address(CLIENT), ip_address(VIPS[4]), PORT["tcp"], 6000)


def forged(destination: str, quoted: int) -> bytes:
    """`Fragmentation needed`, MTU 68, about a packet from the mux to a host."""
    inner = IP(src=CLIENT, dst=VIPS[4]) / Raw(bytes(1400))
    quote = bytes(IP(src=MUX, dst=destination, flags="DF") / inner)[:quoted]
    return bytes(IP(src=CLIENT, dst=MUX) / ICMP(type=3, code=4, nexthopmtu=68) / Raw(quote))


def invented_hosts() -> Iterator[bytes]:
    packet = forged("10.77.0.1", 28)
    at = 20 + 8 + 16
    for n in range(6000):
        changed = packet[: at + 2] + n.to_bytes(2, "big") + packet[at + 4 :]
        yield with_icmp_checksum(changed)


def with_icmp_checksum(packet: bytes) -> bytes:
    found = IP(packet)
    del found[ICMP].chksum
    return bytes(found)


def narrow_paths() -> Iterator[bytes]:
    for n in HOSTS:
        yield from [forged(f"10.1.{n}.2", 28)] * 50


def cpu_s(daemons: list[Daemon]) -> list[float]:
    fields = [Path(f"/proc/{one.process.pid}/stat").read_text().rpartition(")")[2].split() for one in daemons]
    return [(int(one[11]) + int(one[12])) / os.sysconf("SC_CLK_TCK") for one in fields]


def counted(daemons: list[Daemon]) -> list[dict[str, int]]:
    found = [ask(one.control, "counters")["slowpath"] for one in daemons]
    return [{name: value for name, value in one.items() if name.startswith(ATTACKS)} for one in found]


def request_s(lab: Lab) -> float:
    """The median of some requests, each by a connection of its own."""
    took = []
    for _ in range(40):
        with client_socket(lab, 4, "tcp") as client:
            begun = time.monotonic()
            client.connect((VIPS[4], PORT["tcp"]))
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            took.append(time.monotonic() - begun)
    return statistics.median(took)


def echo(sock: socket.socket, host: int) -> None:
    while True:
        connection, _ = sock.accept()
        with connection:
            connection.sendall(connection.recv(1))


def send(lab: Lab, packets: list[bytes]) -> None:
    def work() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            for at, packet in enumerate(packets):
                sock.sendto(packet, (str(ip_address(packet[16:20])), 0))
                if at % 50 == 49:
                    time.sleep(0.015)  # about 3000 a second

    lab.inside("client", work)


def wait_for_the_end(daemons: list[Daemon]) -> None:
    """Until the last packet of the bursts has been handled: on a busy machine many wait in queues."""
    deadline, before = time.monotonic() + START_S, list[dict[str, int]]()
    while True:
        now = counted(daemons)
        met = Counter(now[0])
        if met["outer_error_ignored"] >= 3000 and met["returned_reset"] >= 100 and now == before:
            return
        assert time.monotonic() < deadline, now
        before = now
        time.sleep(0.5)


@pytest.mark.parametrize("driver", [("packet", "tun"), ("xdp", "xdp")], ids=["user space", "kernel"])
def test_five_seconds_after_a_burst_no_trace_remains(lab: Lab, driver: tuple[str, str]) -> None:
    lab.write_config(configuration())
    to_one_mux(lab)
    options = [("--driver", name, *(["--detach-on-exit"] if name == "xdp" else [])) for name in driver]
    bursts = [list(packets()) for packets in (acks, invented_hosts, narrow_paths)]
    with (
        served(lab, 4, "tcp", echo),
        started(lab, "mux1", "mux", *options[0]) as mux,
        started(lab, "host1", "agent", *options[1]) as one,
        started(lab, "host2", "agent", *options[1]) as two,
    ):
        daemons = [mux, one, two]
        for daemon in daemons:
            daemon.wait_for(READY[daemon.program], START_S)
        request_s(lab)
        before_s, usual = request_s(lab), cpu_s(daemons)
        time.sleep(WINDOW_S)
        usual = [after - before for before, after in zip(usual, cpu_s(daemons), strict=True)]
        for burst in bursts:
            send(lab, burst)
        wait_for_the_end(daemons)
        time.sleep(AFTER_S)
        then, counters = cpu_s(daemons), counted(daemons)
        time.sleep(WINDOW_S)
        later = [after - before for before, after in zip(then, cpu_s(daemons), strict=True)]
        assert counted(daemons) == counters
        assert "mtu" not in lab.run("mux1", ["ip", "route", "show", "cache"], capture_output=True, text=True).stdout
        print(f"CPU over {WINDOW_S:.0f} s: {usual} before, {later} after")
        assert all(after < before + MOST_CPU_S for before, after in zip(usual, later, strict=True)), (usual, later)
        after_s = request_s(lab)
        print(f"median request: {before_s * 1e3:.2f} ms before, {after_s * 1e3:.2f} ms after, {after_s / before_s:.2f}")
