"""A mux that gets more packets than it can forward says so, at once and everywhere, and admits fair shares."""

import os
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from itertools import islice
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP

from bench.repeating import repeating
from lbmux.lab.lab import Lab
from lbmux.lab.namespaces import set_route
from lbmux.lab.scoreboard.flood import send as send_evenly
from lbmux.lab.scoreboard.flood import syns
from lbmux.lab.topology import VIP, Route, ananta
from tests.api.asking import ask
from tests.daemons.running_daemons import Daemon, Wire, by_backend, configuration, running, send, service
from tests.daemons.test_mux_daemon import CLIENT, H1, H2, syn
from tests.lab.routed import until
from tests.labs import built

pytestmark = pytest.mark.root
METRICS = 9401
OTHER = "192.0.2.9"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with built(ananta(), f"over{os.getpid()}", programs=False) as lab:
        for vip in (VIP, OTHER):
            lab.inside("router", lambda: set_route(Route(f"{vip}/32", ("10.0.1.2",))))  # noqa: B023 -- called at once
        yield lab


def options(driver: str) -> list[str]:
    return ["--driver", driver, *(["--detach-on-exit"] if driver == "xdp" else [])]


@pytest.mark.parametrize("driver", ["packet", "xdp"])
def test_more_packets_than_the_stated_capacity_are_noticed_and_the_end_too(lab: Lab, driver: str) -> None:
    lab.write_config(configuration(service("web", 80, [H1])) | {"capacity_pps": 500})
    with running(lab, "mux1", "mux", *options(driver), "--metrics", str(METRICS)) as mux:
        nothing = {"seconds": None, "reason": "", "times": 0, "dropped": 0, "admitted": {}}
        nothing |= {"black_holes": {}, "black_holes_begun": 0}
        assert ask(mux.control, "runtime")["overload"] == nothing
        begun, packets = time.monotonic(), [syn(port) for port in range(40000, 40500)]
        while "overloaded: " not in mux.log:
            assert time.monotonic() - begun < 20, mux.log
            send(lab, "client", *packets)
        assert "packets per second exceed capacity_pps (500)" in mux.log
        reported = ask(mux.control, "runtime")["overload"]
        assert reported["times"] >= 1 and "capacity_pps" in reported["reason"]
        until(lambda: "no longer overloaded after " in mux.log)
        assert ask(mux.control, "runtime")["overload"]["seconds"] is None
        text = lab.inside("mux1", lambda: urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics").read().decode())
        assert "\nlbmux_overloaded 0.0\n" in text and f"\nlbmux_overloads_total {reported['times']}.0\n" in text


def syn_to(vip: str, port: int) -> bytes:
    return bytes(IP(src=CLIENT, dst=vip) / TCP(sport=port, dport=80, flags="S"))


def overload(mux: Daemon) -> Any:
    return ask(mux.control, "runtime")["overload"]


@contextmanager
def flooding(lab: Lab) -> Iterator[None]:
    """Send 10,000 SYNs a second to the VIP within the context, or as many as the machine can."""
    packets = list(islice(syns(ip_address(VIP), 80), 2000))
    with repeating(lambda: lab.inside("client", lambda: send_evenly(packets, VIP, len(packets) / 10_000))):
        yield


@pytest.mark.parametrize("driver", ["packet", "xdp"])
def test_a_flood_of_one_vip_costs_another_none_of_its_packets(lab: Lab, driver: str) -> None:
    services = service("flooded", 80, [H1]), service("other", 80, [H2], vip=OTHER)
    lab.write_config(configuration(*services) | {"capacity_pps": 500})
    ports = range(40000, 40100)
    with running(lab, "mux1", "mux", *options(driver)) as mux, Wire(lab, "host2") as wire:
        with flooding(lab):
            until(lambda: VIP in overload(mux)["admitted"] and overload(mux)["dropped"] > 0)
            for port in ports:
                send(lab, "client", syn_to(OTHER, port))
                time.sleep(0.02)  # 50 a second: well below its share
            assert [*by_backend({"host2": wire}, ports)] == [*ports]
            assert OTHER not in overload(mux)["admitted"]
        until(lambda: overload(mux)["admitted"] == {})
        send(lab, "client", syn_to(OTHER, 41000))
        assert [*by_backend({"host2": wire}, [41000])] == [41000]
