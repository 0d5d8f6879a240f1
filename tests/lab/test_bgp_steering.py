"""Steering by BGP: two muxes announce the same VIPs, as two PoPs do; a router that runs BIRD chooses between them."""

from ipaddress import ip_network
from pathlib import Path

import pytest

from lbmux.cli.main import run
from lbmux.lab.lab import Lab
from lbmux.lab.topology import VIP, VIP6
from lbmux.steering.steering_map import SteeringMap, write
from tests.daemons.running_daemons import Daemon, service
from tests.lab.routed import NEEDS, SPEAKERS, WAY, announcing, routing, services, until, ways

pytestmark = NEEDS
WAY6 = {"mux1": "2001:db8:0:1::2", "mux2": "2001:db8:0:2::2"}
AROUND, AROUND6 = "192.0.2.0/24", "2001:db8:192::/48"
POPS = {"fra": ("192.0.2.1",), "ams": ("192.0.2.2",)}


def dual(lab: Lab) -> None:
    """Configure a service in each family."""
    six = service("six", 80, [{"name": "h1", "dip": "2001:db8:1:1::2"}], vip=VIP6)
    lab.write_config(services(1) | {"services": [*services(1)["services"], six]})


def announce(mux: Daemon, *words: str) -> None:
    assert run(["announce", "--control", str(mux.control), *words]) == 0


@pytest.mark.parametrize("speaker", SPEAKERS)
def test_a_router_prefers_the_pop_that_prepends_less(lab: Lab, speaker: str) -> None:
    dual(lab)
    both, both6 = {VIP: set(WAY.values())}, {VIP6: set(WAY6.values())}
    with routing(lab) as router, announcing(lab, "mux1", speaker) as near, announcing(lab, "mux2", speaker):
        until(lambda: ways(router) == both and ways(router, "-6") == both6)
        announce(near, "--prepend", "2")
        until(lambda: ways(router) == {VIP: {WAY["mux2"]}} and ways(router, "-6") == {VIP6: {WAY6["mux2"]}})
        announce(near)
        until(lambda: ways(router) == both and ways(router, "-6") == both6)


@pytest.mark.parametrize("speaker", SPEAKERS)
def test_the_more_specific_prefix_takes_the_users_while_it_is_there(lab: Lab, speaker: str) -> None:
    dual(lab)
    with routing(lab) as router, announcing(lab, "mux1", speaker) as spare, announcing(lab, "mux2", speaker):
        announce(spare, "--length", "24", "--length6", "48")
        until(lambda: ways(router) == {AROUND: {WAY["mux1"]}, VIP: {WAY["mux2"]}})
        until(lambda: ways(router, "-6") == {AROUND6: {WAY6["mux1"]}, VIP6: {WAY6["mux2"]}})
        router.set_link("to-mux2", "down")
        until(lambda: ways(router) == {AROUND: {WAY["mux1"]}} and ways(router, "-6") == {AROUND6: {WAY6["mux1"]}})


@pytest.mark.parametrize("speaker", SPEAKERS)
def test_the_muxes_of_a_pop_without_users_in_the_map_withdraw(lab: Lab, speaker: str, tmp_path: Path) -> None:
    dual(lab)
    path = tmp_path / "map.json"
    with routing(lab) as router, announcing(lab, "mux1", speaker) as fra, announcing(lab, "mux2", speaker) as ams:
        for user, ways_of_users in (("ams", {WAY["mux2"]}), ("fra", {WAY["mux1"]})):
            write(path, SteeringMap("www.example.net", 30, POPS, {ip_network("198.51.100.0/24"): {user: 1.0}}, "fra"))
            for pop, mux in (("fra", fra), ("ams", ams)):
                assert run(["steer", "announce", pop, str(path), "--control", str(mux.control)]) == 0
            until(lambda: ways(router) == {VIP: ways_of_users})  # noqa: B023 -- called within the turn
