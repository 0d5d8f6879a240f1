"""FRR as the router: the same muxes, real daemons, and the router's kernel looked at."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from lbmux.lab import frr_router
from lbmux.lab.lab import Lab
from lbmux.lab.processes import start_time
from lbmux.lab.topology import VIP, VIP6, ananta_frr
from tests.api.asking import ask
from tests.daemons.running_daemons import service
from tests.lab.routed import (
    BFD_S,
    KILLED_S,
    MANY,
    SEVERAL,
    WAY,
    announcing,
    are_within,
    reload_until,
    services,
    silenced,
    until,
)
from tests.labs import built

FRR_PROTOCOL = "186"  # RTPROT_BGP
installed = pytest.mark.skipif(
    not all(Path(frr_router.SEARCH, daemon).exists() for daemon in frr_router.DAEMONS), reason="frr is not installed"
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
    """All namespaces, and the router's FRR; muxes are the test's own."""
    with built(ananta_frr(), f"f{os.getpid()}", programs=False) as lab:
        lab.write_config(services(1))
        node = lab.topology.node("router")
        lab.start(node, node.programs[0], forked=True)
        yield lab


def ways(lab: Lab, family: str = "-4") -> dict[str, set[str]]:
    """The gateways of each route that FRR put into the kernel."""
    command = ["ip", family, "-N", "-j", "route", "show", "proto", FRR_PROTOCOL]
    routes = json.loads(lab.run("router", command, capture_output=True, text=True).stdout)
    return {route["dst"]: {hop["gateway"] for hop in route.get("nexthops", [route])} for route in routes}


@pytest.mark.root
@installed
@pytest.mark.parametrize("speaker", ["exabgp", "bird"])
def test_two_muxes_are_two_next_hops_until_one_stops_or_is_killed(lab: Lab, speaker: str) -> None:
    with announcing(lab, "mux1", speaker) as one:
        until(lambda: ways(lab) == {VIP: {WAY["mux1"]}})
        took_s = []
        for _ in range(SEVERAL):
            with announcing(lab, "mux2", speaker) as two:
                until(lambda: ways(lab) == {VIP: set(WAY.values())})
                two.tell(signal.SIGKILL)
                took_s.append(until(lambda: ways(lab) == {VIP: {WAY["mux1"]}}, 2))
                two.process.wait(2)
        print(f"{speaker}: withdrawn {1000 * median(took_s):.0f} ms after kill -9")
        assert are_within(took_s, KILLED_S if speaker == "bird" else 2 * KILLED_S), "FRR takes ExaBGP's end later"
        one.tell(signal.SIGTERM)
        until(lambda: not ways(lab), 2)
        assert one.process.wait(10) == 0


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
def test_with_bfd_a_silent_speaker_is_withdrawn_before_the_hold_time(lab: Lab) -> None:
    with announcing(lab, "mux1", "bird", "--bfd") as mux:
        took_s = [silenced(mux, lambda: bool(ways(lab))) for _ in range(SEVERAL)]
        print(f"withdrawn {1000 * median(took_s):.0f} ms after SIGSTOP of the speaker, with BFD")
        assert are_within(took_s, BFD_S)


@pytest.mark.root
@installed
def test_no_daemon_outlives_the_lab(lab: Lab) -> None:
    directory = lab.directory / "router"
    until(lambda: (directory / "bgpd.vty").exists())
    pids = [int((directory / f"{daemon}.pid").read_text()) for daemon in frr_router.DAEMONS]
    assert all(start_time(pid) for pid in pids)
    lab.down()
    assert not any(start_time(pid) for pid in pids)


@pytest.mark.root
@installed
def test_a_thousand_vips_are_in_the_kernel_within_two_seconds_of_a_reload(lab: Lab) -> None:
    lab.write_config(services(MANY))  # tables are sized for the services at the start
    with announcing(lab, "mux1", "bird") as mux:
        until(lambda: len(ways(lab)) == MANY, pause_s=0.05)
        lab.write_config(services(2))
        assert mux.reload().returncode == 0
        until(lambda: len(ways(lab)) == 2, 10, 0.05)
        lab.write_config(services(MANY))
        took_s = reload_until(mux, lambda: len(ways(lab)) == MANY)
        print(f"{MANY} VIPs in the router's kernel {took_s:.2f} s after the reload was asked for")
        assert took_s < 2
