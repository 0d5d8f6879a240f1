"""FRR as the router: the same muxes, real daemons, and the router's kernel looked at."""

from collections.abc import Iterator

import pytest

from lbmux.lab import frr_router
from lbmux.lab.lab import Lab
from lbmux.lab.processes import start_time
from lbmux.lab.topology import VIP6
from tests.api.asking import ask
from tests.daemons.running_daemons import service
from tests.lab.frr_routed import frr_lab, installed, ways
from tests.lab.routed import (
    WAY,
    announcing,
    services,
    until,
)


def test_a_password_is_every_neighbours_and_bfd_too() -> None:
    lines = frr_router.configuration([("10.0.1.1", "10.0.1.2"), ("10.0.2.1", "10.0.2.2")], "secret").splitlines()
    for peer in WAY.values():
        assert f" neighbor {peer} password secret" in lines
        assert f" neighbor {peer} bfd profile lab" in lines
    assert not [
        line for line in frr_router.configuration([("10.0.1.1", "10.0.1.2")]).splitlines() if "password" in line
    ]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with frr_lab() as lab:
        yield lab


@pytest.mark.root
@installed
@pytest.mark.parametrize("speaker", ["exabgp", "bird"])
def test_a_wrong_as_is_reported_with_frrs_notification(lab: Lab, speaker: str) -> None:
    with announcing(lab, "mux1", speaker, "--bgp-as", "65009") as mux:
        until(lambda: "bad peer as" in ask(mux.control, "bgp")["neighbours"][0]["reason"].lower())
        mux.wait_for("BGP session with 10.0.1.1 (AS 64512) is not established")


@pytest.mark.root
@installed
def test_an_ipv6_vip_leads_to_the_muxs_own_ipv6_address(lab: Lab) -> None:
    six = service("six", 80, [{"name": "h1", "dip": "2001:db8:1:1::2"}], vip=VIP6)
    lab.write_config(services(1) | {"services": [*services(1)["services"], six]})
    with announcing(lab, "mux1", "exabgp"), announcing(lab, "mux2", "exabgp"):
        until(lambda: ways(lab, "-6") == {VIP6: {"2001:db8:0:1::2", "2001:db8:0:2::2"}})


@pytest.mark.root
@installed
def test_no_daemon_outlives_the_lab(lab: Lab) -> None:
    directory = lab.directory / "router"
    until(lambda: (directory / "bgpd.vty").exists())
    pids = [int((directory / f"{daemon}.pid").read_text()) for daemon in frr_router.DAEMONS]
    assert all(start_time(pid) for pid in pids)
    lab.down()
    assert not any(start_time(pid) for pid in pids)
