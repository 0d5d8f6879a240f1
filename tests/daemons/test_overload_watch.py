"""A mux that gets more packets than it can forward says so, at once and everywhere."""

import os
import time
import urllib.request
from collections.abc import Iterator

import pytest

from lbmux.lab.lab import Lab
from lbmux.lab.topology import ananta
from tests.api.asking import ask
from tests.daemons.running_daemons import configuration, running, send, service
from tests.daemons.test_mux_daemon import H1, syn
from tests.lab.routed import until
from tests.labs import built

pytestmark = pytest.mark.root
METRICS = 9401


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with built(ananta(), f"over{os.getpid()}", programs=False) as lab:
        lab.write_config(configuration(service("web", 80, [H1])) | {"capacity_pps": 500})
        yield lab


@pytest.mark.parametrize("driver", ["packet", "xdp"])
def test_more_packets_than_the_stated_capacity_are_noticed_and_the_end_too(lab: Lab, driver: str) -> None:
    options = ("--driver", driver, "--metrics", str(METRICS))
    with running(lab, "mux1", "mux", *options, *(["--detach-on-exit"] if driver == "xdp" else [])) as mux:
        assert ask(mux.control, "runtime")["overload"] == {"seconds": None, "reason": "", "times": 0}
        begun, packets = time.monotonic(), [syn(port) for port in range(40000, 40500)]
        while "overloaded: " not in mux.log:
            assert time.monotonic() - begun < 20, mux.log
            send(lab, "client", *packets)
        assert "packets per second exceed capacity_pps (500)" in mux.log
        found = ask(mux.control, "runtime")["overload"]
        assert found["times"] >= 1 and "capacity_pps" in found["reason"]
        until(lambda: "no longer overloaded after " in mux.log)
        assert ask(mux.control, "runtime")["overload"]["seconds"] is None
        text = lab.inside("mux1", lambda: urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics").read().decode())
        assert "\nlbmux_overloaded 0.0\n" in text and f"\nlbmux_overloads_total {found['times']}.0\n" in text
