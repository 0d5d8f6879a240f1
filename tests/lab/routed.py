"""A router that runs BIRD, muxes that announce their VIPs to it, and the router's kernel looked at."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from lbmux.lab.bird_router import configuration as router_configuration
from lbmux.lab.lab import Lab
from tests.api.asking import ask
from tests.daemons.running_daemons import Daemon, configuration, running, service

SEARCH = "/usr/sbin:/usr/local/sbin:/usr/bin"
NEEDS = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("bird", path=SEARCH) is None, reason="bird is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("exabgp") is None, reason="exabgp is not installed"),
]
BIRD_PROTOCOL = "12"  # RTPROT_BIRD
STARTS_S = 15.0
PEER = {"mux1": "10.0.1.1", "mux2": "10.0.2.1"}
WAY = {"mux1": "10.0.1.2", "mux2": "10.0.2.2"}
SPEAKERS = ("exabgp", "bird")
KILLED_S, BFD_S = 0.1, 0.3
"""Wait until the router's kernel has it."""
MANY, SEVERAL = 1000, 3


class Router:
    """What the router's kernel has."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def routes(self, family: str = "-4") -> list[Any]:
        command = ["ip", family, "-N", "-j", "route", "show", "proto", BIRD_PROTOCOL]
        return json.loads(self._lab.run("router", command, capture_output=True, text=True).stdout)

    def set_link(self, interface: str, state: str) -> None:
        assert self._lab.run("router", ["ip", "link", "set", interface, state]).returncode == 0


def ways(router: Router, family: str = "-4") -> dict[str, set[str]]:
    """The gateways of each route that BIRD put into the kernel."""
    routes = router.routes(family)
    return {route["dst"]: {hop["gateway"] for hop in route.get("nexthops", [route])} for route in routes}


def until(holds: Callable[[], bool], within_s: float = STARTS_S, pause_s: float = 0.002) -> float:
    """Wait for it, and return how long that took, in seconds.

    Look ever less often, at least every 50 ms: what is waited for needs the CPU.
    """
    start = time.monotonic()
    while not holds():
        took_s = time.monotonic() - start
        assert took_s < within_s, f"not within {within_s} s"
        time.sleep(max(pause_s, min(took_s / 20, 0.05)))
    return time.monotonic() - start


def reload_until(mux: Daemon, holds: Callable[[], bool]) -> float:
    """Seconds from the moment that a reload is asked for until it has come about."""
    begun = time.monotonic()
    mux.tell(signal.SIGHUP)
    until(holds, 10, 0.02)
    return time.monotonic() - begun


def services(count: int) -> dict[str, Any]:
    backend = [{"name": "h1", "dip": "10.1.1.2"}]
    return configuration(
        *(service(f"s{n}", 80, backend, vip=f"192.0.{2 + n // 250}.{1 + n % 250}") for n in range(count))
    )


@contextlib.contextmanager
def routing(lab: Lab, *more: str) -> Iterator[Router]:
    """The router's BIRD, and a look into its kernel."""
    node = lab.topology.node("router")
    program = node.programs[0]
    lab.start(node, replace(program, arguments=(*program.arguments, *more)), forked=True)
    yield Router(lab)


@contextlib.contextmanager
def routing6(lab: Lab, node: str, local: str, peer: str) -> Iterator[Router]:
    """The router's BIRD, with a session to a node by IPv6, which is all that there is on their link."""
    for end, interface in ((node, "eth0"), ("router", f"to-{node}")):
        lab.run(end, ["ip", "-4", "addr", "flush", "dev", interface], check=True, timeout=10)
    directory = lab.directory / "router6"
    directory.mkdir()
    text = router_configuration([(local, peer)]).replace(f"router id {local}", "router id 198.51.100.1")
    (directory / "bird.conf").write_text(text)
    bird = shutil.which("bird", path=SEARCH)
    assert bird is not None
    files = ["-c", str(directory / "bird.conf"), "-s", str(directory / "bird.ctl"), "-P", str(directory / "bird.pid")]
    process = lab.popen("router", [bird, "-f", *files])
    try:
        yield Router(lab)
    finally:
        process.terminate()
        process.wait(10)


def are_within(took_s: list[float], goal_s: float) -> bool:
    """The quickest is what it takes; other load on the machine may have slowed most of the others down, to twice it."""
    return min(took_s) < goal_s and median(took_s) < 2 * goal_s


def silenced(mux: Daemon, announced: Callable[[], bool]) -> float:
    """Return the seconds, with BFD, from a speaker's silence until a router has withdrawn its routes."""
    until(lambda: announced() and ask(mux.control, "bgp")["neighbours"][0]["bfd"] == "up")
    speaker = speaker_of(mux)
    os.kill(speaker, signal.SIGSTOP)
    took_s = until(lambda: not announced(), 2)
    os.kill(speaker, signal.SIGCONT)
    return took_s


def speaker_of(mux: Daemon) -> int:
    """The process that speaks BGP: the keeper's child, which is the mux's."""
    (watchdog,) = (
        pid for pid in children(mux.process.pid) if b"speaker_watchdog.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    (speaker,) = children(watchdog)
    return speaker


def children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for thread in threads for child in thread.read_text().split()]


def announcing(lab: Lab, node: str, speaker: str, *more: str) -> Any:
    return running(lab, node, "mux", "--bgp-peer", PEER[node], "--bgp-speaker", speaker, "--drain", "0.1", *more)
