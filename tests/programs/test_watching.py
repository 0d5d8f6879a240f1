"""`lbmux trace` and `lbmux capture` at a mux that runs: frames come, and what they print of them."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.utils import rdpcap

from lbmux.cli.trace import _steps
from lbmux.lab.lab import Lab

from .daemons import Daemon, configuration, running, send, service

pytestmark = pytest.mark.root

CLIENT, VIP = "198.51.100.2", "192.0.2.1"
H1 = {"name": "h1", "dip": "10.1.1.2", "port": 8080}


def syn(source_port: int, port: int = 80) -> bytes:
    return bytes(IP(src=CLIENT, dst=VIP) / TCP(sport=source_port, dport=port, flags="S"))


@pytest.fixture
def mux(lab: Lab) -> Iterator[Daemon]:
    """`web` is for all, `closed` not for our client."""
    closed = service("closed", 81, [H1], deny=[f"{CLIENT}/32"])
    lab.write_config(configuration(service("web", 80, [H1]), closed))
    with running(lab, "mux1", "mux") as daemon:
        yield daemon


@contextlib.contextmanager
def watching(daemon: Daemon, command: str, *options: str) -> "Iterator[subprocess.Popen[str]]":
    """A command that watches already; it is ended if it does not end."""
    line = [sys.executable, "-m", "lbmux.cli.main", command, "--control", str(daemon.control), *options]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr and "watching the mux on eth0" in process.stderr.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def trace(lab: Lab, daemon: Daemon, options: list[str], packets: list[bytes]) -> list[dict[str, Any]]:
    with watching(daemon, "trace", "-j", *options) as process:
        send(lab, "client", *packets)
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    return [json.loads(line) for line in out.splitlines()]


def test_traces_a_forwarded_frame_with_its_steps(lab: Lab, mux: Daemon) -> None:
    (frame,) = trace(lab, mux, ["-n", "1", "tcp and src port 4001"], [syn(4000), syn(4001)])
    assert frame["line"] == f"{CLIENT}:4001 > {VIP}:80 tcp [S], 40 bytes"
    assert (frame["verdict"], frame["service"], frame["backend"]) == ("forwarded", "web", "h1")
    assert (frame["interface"], frame["left_by"]) == ("eth0", "eth0")
    assert time.time() - frame["time_ns"] / 1e9 < 60
    steps = {step["step"]: step["found"] for step in frame["steps"]}
    assert set(steps) == {"service", "flow", "slot", "backend", "next hop", "outer header"}
    assert steps["outer header"].startswith("10.0.1.2 > 10.1.1.2")


def test_traces_only_what_is_dropped(lab: Lab, mux: Daemon) -> None:
    (frame,) = trace(lab, mux, ["-n", "1", "drop"], [syn(4100), syn(4101, 81), syn(4102)])
    assert frame["line"].startswith(f"{CLIENT}:4101 > {VIP}:81")
    assert (frame["verdict"], frame["kind"], frame["service"], frame["left"]) == ("denied", "drop", "closed", None)
    assert f"keep {CLIENT} out" in frame["steps"][-1]["found"]


def test_traces_what_is_left_to_the_kernel_by_verdict(lab: Lab, mux: Daemon) -> None:
    dns = bytes(IP(src=CLIENT, dst=VIP) / UDP(sport=4200, dport=53))
    (frame,) = trace(lab, mux, ["-n", "1", "verdict", "not_vip", "and", "udp"], [syn(4200), dns])
    assert (frame["verdict"], frame["kind"], frame["service"]) == ("not_vip", "pass", None)


def test_prints_a_line_a_step(lab: Lab, mux: Daemon) -> None:
    with watching(mux, "trace", "-n", "1", "src port 4300") as process:
        send(lab, "client", syn(4300))
        out, _ = process.communicate(timeout=60)
    first, *steps, last = out.splitlines()
    assert f" eth0 {CLIENT}:4300 > {VIP}:80 tcp [S], 40 bytes" in first
    assert len(steps) == 6 and all(step.endswith("(asked afterwards)") for step in steps)
    assert last.split() == ["verdict", "forwarded", "(send),", "web/h1"]


def test_asks_for_the_steps_of_ipv6_as_well(mux: Daemon) -> None:
    line = "[2001:db8::7]:4000 > [2001:db8::1]:80 tcp [S], 60 bytes"
    assert [step["step"] for step in _steps(mux.control, {"line": line})] == ["service", "to mend it"]


def test_says_where_a_filter_is_wrong(mux: Daemon) -> None:
    line = [sys.executable, "-m", "lbmux.cli.main", "trace", "--control", str(mux.control), "verdict lost"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "there is no verdict 'lost'" in done.stderr


def capture(lab: Lab, daemon: Daemon, file: Path, options: list[str], packets: list[bytes]) -> None:
    with watching(daemon, "capture", "-w", str(file), *options) as process:
        send(lab, "client", *packets)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors


def tshark(file: Path, *fields: str) -> list[list[str]]:
    names = [word for field in fields for word in ("-e", field)]
    line = ["tshark", "-r", str(file), "-T", "fields", *names]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_captures_frames_with_verdict_interface_and_time(lab: Lab, mux: Daemon, tmp_path: Path) -> None:
    file, before = tmp_path / "x.pcapng", time.time()
    capture(lab, mux, file, ["-n", "2", "tcp", "port", "4400"], [syn(4400), syn(4400, 81)])
    fields = ("frame.comment", "frame.interface_name", "frame.time_epoch")
    lines = tshark(file, *fields)
    assert [(line[0], line[1]) for line in lines] == [
        ("in: verdict forwarded (send), service web, backend h1", "eth0"),
        ("out: verdict forwarded (send), service web, backend h1", "eth0"),
        ("in: verdict denied (drop), service closed", "eth0"),
    ]
    assert all(before <= float(line[2]) <= time.time() for line in lines)
    came, left, denied = rdpcap(str(file))
    assert (came[IP].dst, left[IP].dst, left[IP].payload.dst, denied[TCP].dport) == (VIP, H1["dip"], VIP, 81)


def test_captures_only_what_was_dropped(lab: Lab, mux: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "x.pcapng"
    capture(lab, mux, file, ["-n", "1", "--at", "drop", "src port 4500"], [syn(4500), syn(4500, 81)])
    assert tshark(file, "frame.comment") == [["drop: verdict denied (drop), service closed"]]


def test_captures_what_left_without_its_tunnel(lab: Lab, mux: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "x.pcapng"
    capture(lab, mux, file, ["-n", "1", "--at", "out", "--inner", "src port 4600"], [syn(4600)])
    (left,) = rdpcap(str(file))
    assert (left[IP].src, left[IP].dst, left[TCP].sport, left[IP].ttl) == (CLIENT, VIP, 4600, 62)
    assert len(left[IP]) == 40
