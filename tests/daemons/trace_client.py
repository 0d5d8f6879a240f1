"""A mux or an agent that is watched: `lbmux trace` and `lbmux capture` beside it, and what they say."""

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP

from lbmux.lab.lab import Lab
from tests.daemons.running_daemons import Daemon, configuration, running, send, service
from tests.daemons.slow_lab import forget_path_mtus
from tests.lbmux_command import Command, beside

CLIENT, VIP = "198.51.100.2", "192.0.2.1"
H1 = {"name": "h1", "dip": "10.1.1.2", "port": 8080}
DRIVERS = pytest.mark.parametrize("driver", ["packet", "xdp"])


def syn(source_port: int, port: int = 80) -> bytes:
    return bytes(IP(src=CLIENT, dst=VIP) / TCP(sport=source_port, dport=port, flags="S"))


@contextlib.contextmanager
def trace_hub(daemon: Daemon, command: str, *options: str) -> Iterator[Command]:
    """A command that watches already; it is ended if it does not end."""
    with beside(command, "--control", str(daemon.control), *options) as client:
        client.wait_for(f"tracing the {daemon.program} on eth0")
        yield client


def trace(lab: Lab, daemon: Daemon, options: list[str], packets: list[bytes]) -> list[dict[str, Any]]:
    with trace_hub(daemon, "trace", "-j", *options) as client:
        send(lab, "client", *packets)
        ran = client.completed()
        assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def capture(lab: Lab, daemon: Daemon, file: Path, options: list[str], packets: list[bytes]) -> None:
    with trace_hub(daemon, "capture", "-w", str(file), *options) as client:
        send(lab, "client", *packets)
        ran = client.completed()
        assert ran.returncode == 0, ran.stderr


def tshark(file: Path, *fields: str) -> list[list[str]]:
    names = [word for field in fields for word in ("-e", field)]
    line = ["tshark", "-r", str(file), "-T", "fields", *names]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


@contextlib.contextmanager
def mux_with(lab: Lab, driver: str, *options: str, **more: Any) -> Iterator[Daemon]:
    """`web` is for all, `dns` for datagrams, `closed` not for our client; the next hop is known."""
    closed = service("closed", 81, [H1], deny=[f"{CLIENT}/32"])
    dns = service("dns", 53, [H1], protocol="udp")
    lab.write_config(configuration(service("web", 80, [H1]), dns, closed) | more)
    detach_on_exit = ["--detach-on-exit"] if driver == "xdp" else []
    forget_path_mtus(lab)
    with running(lab, "mux1", "mux", "--driver", driver, *detach_on_exit, *options) as daemon:
        send(lab, "client", syn(3999))
        yield daemon


def way(frame: dict[str, Any]) -> list[tuple[str, str]]:
    return [(step["step"], step["found"]) for step in frame["steps"]]
