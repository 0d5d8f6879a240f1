"""A flood that still costs packets although its VIP is a black hole: the router gets RFC 7999's community."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbmux.lab.lab import Lab
from lbmux.lab.topology import VIP, ananta_bgp
from tests.api.asking import ask
from tests.daemons.running_daemons import configuration, service
from tests.daemons.test_isolation import CAPACITY, flooding
from tests.daemons.test_mux_daemon import H1, H2
from tests.daemons.test_overload_watch import OTHER
from tests.lab.routed import NEEDS, PEER, WAY, routing, until, ways
from tests.labs import built

pytestmark = NEEDS
LOSING = """
from lbmux.metrics.overload import Overload
Overload.loses = lambda self, now: True
from lbmux.cli.main import main
main()
"""
"""A mux that says that it loses packets: how many a machine has to get for that is not a test's to know."""
LASTS_S, COMMUNITY = 5, "(65535,666)"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with built(ananta_bgp(), f"ups{os.getpid()}", programs=False) as lab:
        yield lab


def communities(lab: Lab, vip: str) -> str:
    """What the router's BIRD knows about a VIP."""
    control = lab.directory / "router" / "bird.ctl"
    command = ["birdc", "-s", str(control), "show", "route", "all", "for", vip]
    return str(lab.run("router", command, capture_output=True, text=True).stdout)


@contextlib.contextmanager
def losing_mux(lab: Lab, tmp_path: Path, speaker: str) -> Iterator[Path]:
    """Its control socket."""
    control = tmp_path / "mux.sock"
    options = ["mux", "-c", str(lab.config), "-i", "eth0", "--driver", "packet", "--control", str(control)]
    options += ["--bgp-peer", PEER["mux1"], "--bgp-speaker", speaker, "--drain", "0.1"]
    with (tmp_path / "log").open("wb") as log:
        mux = lab.popen("mux1", [sys.executable, "-c", LOSING, *options], stdout=log, stderr=log)
        try:
            yield control
        finally:
            mux.terminate()
            assert mux.wait(10) == 0


@pytest.mark.parametrize(
    ("speaker", "upstream"), [("bird", "blackhole"), ("exabgp", "blackhole"), ("bird", "withdraw")]
)
def test_the_router_gets_the_community_or_no_route_until_the_time_is_over(
    lab: Lab, tmp_path: Path, speaker: str, upstream: str
) -> None:
    services = service("flooded", 80, [H1]), service("other", 80, [H2], vip=OTHER)
    rules = {"first_s": LASTS_S, "after_s": 0.2, "upstream": upstream}
    lab.write_config(configuration(*services) | {"capacity_pps": CAPACITY, "black_hole": rules})
    both = {VIP: {WAY["mux1"]}, OTHER: {WAY["mux1"]}}

    def is_dropped() -> bool:
        if upstream == "withdraw":
            return ways(router) == {OTHER: {WAY["mux1"]}}
        return COMMUNITY in communities(lab, VIP)

    with routing(lab) as router, losing_mux(lab, tmp_path, speaker) as control:
        until(lambda: ways(router) == both, 60)
        with flooding(lab, "flood-vip"):
            until(is_dropped, 30)
            assert ask(control, "runtime")["overload"]["black_holes"][VIP]["upstream"]
            assert COMMUNITY not in communities(lab, OTHER) and OTHER in ways(router)
        until(lambda: ways(router) == both and COMMUNITY not in communities(lab, VIP), 30)
        assert f"VIP {VIP} is no longer a black hole: on parole" in (tmp_path / "log").read_text()
