"""A mux that gets far more packets than it can forward: what has to come first does."""

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from bench.saturation import SENDERS
from lbmux.lab.lab import Lab
from lbmux.lab.processes import python
from lbmux.lab.topology import VIP, ananta_bgp
from tests.api.asking import ask
from tests.lab.measured import needs
from tests.lab.routed import until
from tests.labs import built

pytestmark = [pytest.mark.root, needs("bird")]
ASKED, PAUSE_S, WITHIN_S = 20, 0.1, 60.0
MUX = ("10.0.1.2", "2001:db8:0:1::2")


@pytest.fixture
def lab(driver: str) -> Iterator[Lab]:
    topology = ananta_bgp("--bgp-speaker", "bird", mux_count=1)
    if driver == "xdp":  # whose real capacity two processes do not reach
        topology = replace(topology, config=topology.config | {"capacity_pps": 500})
    with built(topology, f"sat{os.getpid()}", driver) as lab:
        until(lambda: has_route(lab), WITHIN_S, 0.1)
        yield lab


def has_route(lab: Lab) -> bool:
    return bool(lab.run("router", ["ip", "route", "show", f"{VIP}/32"], capture_output=True).stdout)


@contextmanager
def flooded(lab: Lab, kind: str) -> Iterator[None]:
    """Processes that send as fast as they can for some seconds, at most as long as the context."""
    senders = [lab.popen("client", python("bench.saturation", kind)) for _ in range(SENDERS)]
    try:
        yield
    finally:
        for sender in senders:
            sender.kill()
            sender.wait()


def is_resolved(lab: Lab, address: str) -> bool:
    """Whether the router learns the mux's MAC address, which it had to forget, by ARP or by neighbour discovery."""
    lab.run("router", ["ip", "neighbour", "del", address, "dev", "to-mux1"], capture_output=True)
    return lab.run("router", ["ping", "-c", "1", "-W", "2", address], capture_output=True).returncode == 0


@pytest.mark.parametrize(("driver", "kind"), [("packet", "flood-syn"), ("packet", "flood-vip"), ("xdp", "flood-vip")])
def test_hosts_bgp_and_the_control_socket_hold_in_a_flood(lab: Lab, kind: str) -> None:
    def mux(what: str) -> Any:
        return ask(lab.directory / "mux1.sock", what)

    def states() -> set[str]:
        return {line["state"] for line in mux("health")["health"]}

    log = lab.directory / "mux1-mux.log"
    until(lambda: states() == {"up"} and mux("runtime")["overload"]["seconds"] is None, WITHIN_S, 0.1)
    logged, noticed, took_s, routes = len(log.read_text()), mux("runtime")["overload"]["times"], list[float](), 0
    with flooded(lab, kind):
        until(lambda: mux("runtime")["overload"]["times"] > noticed, WITHIN_S, 0.05)
        until(lambda: has_route(lab), WITHIN_S, 0.1)  # its loop may have been late before
        for address in MUX:
            until(lambda: is_resolved(lab, address), WITHIN_S, 0.1)  # noqa: B023 -- called at once
        for _ in range(ASKED):
            begun = time.monotonic()
            mux("counters")
            took_s.append(time.monotonic() - begun)
            routes += has_route(lab)
            time.sleep(PAUSE_S)
    assert routes == ASKED and statistics.median(took_s) < 1.0, (routes, took_s)
    assert "does not answer through the tunnel" not in log.read_text()[logged:]
    assert states() == {"up"}
