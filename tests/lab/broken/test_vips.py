"""A VIP that is where it should not be, or is not where it should."""

import pytest

from lbmux.lab.topology import VIP, VIP6
from tests.lab.broken.broken import Broken

pytestmark = pytest.mark.root


def test_the_vip_on_a_mux(pool: Broken) -> None:
    with pool.changed("mux1", f"ip address add {VIP}/32 dev lo", f"ip address del {VIP}/32 dev lo"):
        assert pool.doctor("mux1").says("VIP", f"this mux has the VIP {VIP} as an address")


def test_mode_local_without_the_vip(pool: Broken) -> None:
    with pool.changed("host3", f"ip address del {VIP}/32 dev lo", f"ip address add {VIP}/32 dev lo"):
        assert pool.doctor("host3").says("VIP", f"mode local, but {VIP} is not an address of this host")


def test_a_host_that_answers_arp_for_the_vip(pool: Broken) -> None:
    mac = pool.mac("host3")
    with pool.sysctl("host3", "net.ipv4.conf.all.arp_ignore", "0"):
        assert pool.doctor("host3").says("VIP by ARP", "this host answers ARP for the VIP")
        assert pool.doctor("router").says("VIP by ARP", f"{mac} on to-host3 answers ARP for the VIP {VIP}")


def test_a_host_that_answers_neighbour_discovery_for_the_vip(pool: Broken) -> None:
    mac, move = pool.mac("host3"), f"ip -6 address {{}} {VIP6}/128 dev {{}}"
    assert not pool.doctor("router").faults
    with pool.changed("host3", move.format("add", "eth0"), move.format("del", "eth0")):
        assert pool.doctor("host3").says(
            "VIP on link", f"{VIP6} is an address of eth0: this host answers neighbour discovery for the VIP"
        )
        seen = f"{mac} on to-host3 answers neighbour discovery for the VIP {VIP6}"
        assert pool.doctor("router").says("VIP on link", seen)
