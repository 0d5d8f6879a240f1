"""An edge of an IPv6 VIP, over a link that has IPv6 alone."""

import contextlib
import os
import shutil
import signal
import socket
from collections.abc import Iterator

import pytest

from lbmux.lab.lab import Lab
from lbmux.lab.topology import VIP6, ananta_bgp
from tests.daemons.running_daemons import configuration, service
from tests.lab.routed import SEARCH, routing6, until, ways
from tests.labs import built
from tests.lbmux_command import LBMUX

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("bird", path=SEARCH) is None, reason="bird is not installed"),
]
ROUTER, HOST, PORT = "2001:db8:1:1::1", "2001:db8:1:1::2", 8080
HEALTH = {"kind": "tcp", "interval_s": 0.1, "timeout_s": 0.1, "rise": 1, "fall": 2}


@pytest.fixture
def lab() -> Iterator[Lab]:
    with built(ananta_bgp(), f"x{os.getpid()}", programs=False) as lab:
        yield lab


@contextlib.contextmanager
def edge(lab: Lab) -> Iterator[None]:
    backend = {"name": "h1", "dip": HOST, "port": PORT}
    lab.write_config(configuration(service("web", PORT, [backend], vip=VIP6, health=HEALTH)))
    options = ["-c", str(lab.config), "-i", "eth0", "--control", str(lab.directory / "edge.sock"), "--drain", "0"]
    command = [*LBMUX, "edge", *options, "--bgp-peer", ROUTER, "--bgp-speaker", "bird"]
    with (lab.directory / "edge.log").open("wb") as log:
        process = lab.fork("host1", command, log)
    try:
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


def server() -> socket.socket:
    return socket.create_server(("::", PORT), family=socket.AF_INET6)


def test_an_ipv6_vip_is_where_its_service_is_healthy(lab: Lab) -> None:
    lab.run("host1", ["ip", "addr", "add", f"{VIP6}/128", "dev", "lo"], check=True, timeout=10)
    with routing6(lab, "host1", ROUTER, HOST) as router, edge(lab):
        with lab.inside("host1", server):
            until(lambda: ways(router, "-6") == {VIP6: {HOST}}, 30)
            lab.inside("client", lambda: socket.create_connection((VIP6, PORT), 3)).close()
        until(lambda: not ways(router, "-6"), 3)
        with lab.inside("host1", server):
            until(lambda: ways(router, "-6") == {VIP6: {HOST}})
    assert not (lab.directory / "edge.bgp").exists()
