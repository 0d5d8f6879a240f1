"""A flooded VIP becomes a black hole while another keeps all its packets, and comes back after the flood."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from itertools import islice
from typing import Any

import pytest

from bench.repeating import repeating
from lbmux.lab.lab import Lab
from lbmux.lab.namespaces import set_route
from lbmux.lab.scoreboard.flood import KINDS
from lbmux.lab.scoreboard.flood import send as send_evenly
from lbmux.lab.topology import VIP, Route, ananta
from tests.daemons.running_daemons import Daemon, Wire, by_backend, configuration, running, send, service
from tests.daemons.test_mux_daemon import H1, H2
from tests.daemons.test_overload_watch import OTHER, options, overload, syn_to
from tests.lab.routed import until
from tests.labs import built

pytestmark = pytest.mark.root
PER_S, CAPACITY, PORT = 8000, 500, 41000
"""Far more than the capacity, so that a machine that sends only half of it still floods."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with built(ananta(), f"hole{os.getpid()}", programs=False) as lab:
        for vip in (VIP, OTHER):
            lab.inside("router", lambda: set_route(Route(f"{vip}/32", ("10.0.1.2",))))  # noqa: B023 -- called at once
        yield lab


@contextmanager
def flooding(lab: Lab, kind: str) -> Iterator[None]:
    """Send a kind of flood to the VIP within the context."""
    packets = KINDS[kind](ip_address(VIP), 80)

    def send_some() -> None:
        some = list(islice(packets, PER_S // 10))  # new sources each time
        lab.inside("client", lambda: send_evenly(some, VIP, len(some) / PER_S))

    with repeating(send_some):
        yield


def black_holes(mux: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = overload(mux)["black_holes"]
    return found


@pytest.mark.parametrize("driver", ["packet", "xdp"])
def test_a_flooded_vip_is_isolated_until_the_flood_ends(lab: Lab, driver: str) -> None:
    services = service("flooded", 80, [H1]), service("other", 80, [H2], vip=OTHER)
    lab.write_config(configuration(*services) | {"capacity_pps": CAPACITY})
    ports = range(40000, 40050)
    with running(lab, "mux1", "mux", *options(driver)) as mux, Wire(lab, "host2") as wire:
        with flooding(lab, "flood-vip"):
            until(lambda: VIP in black_holes(mux), 20)
            assert f"VIP {VIP} is a black hole: " in mux.log
            for port in ports:
                send(lab, "client", syn_to(OTHER, port))
                time.sleep(0.02)  # 50 a second: well below its share
            assert [*by_backend({"host2": wire}, ports)] == [*ports]
            until(lambda: black_holes(mux).get(VIP, {"dropped": 0})["dropped"] > 100, 20)
            assert OTHER not in black_holes(mux)
        until(lambda: not black_holes(mux), 20)
        assert f"VIP {VIP} is no longer a black hole: " in mux.log
        with Wire(lab, "host1") as flooded:  # from now on: the flood's first packets came there too
            send(lab, "client", syn_to(VIP, PORT))
            assert [*by_backend({"host1": flooded}, [PORT])] == [PORT]
