"""What a router does with packets for a VIP, and what the kernels of muxes and hosts do by themselves."""

import pytest

from lbmux.lab.topology import VIP
from tests.lab.broken.broken import Broken

pytestmark = pytest.mark.root


def test_a_router_that_hashes_addresses_only(pool: Broken) -> None:
    with pool.sysctl("router", "net.ipv4.fib_multipath_hash_policy", "0"):
        assert pool.doctor("router").says("hash policy", "ports are not hashed")


def test_a_router_that_does_not_spread(pool: Broken) -> None:
    both = f"ip route replace {VIP} nexthop via 10.0.1.2 nexthop via 10.0.2.2"
    with pool.changed("router", f"ip route replace {VIP} via 10.0.1.2", both):
        assert pool.doctor("router").says("spread", "10.0.2.2 gets nothing", "warning")
    with pool.changed("router", f"ip route replace {VIP} via 10.1.1.2", both):
        assert pool.doctor("router").says("spread", "10.1.1.2, which is not a mux")
    with pool.changed("router", f"ip route del {VIP}", both):
        assert pool.doctor("router").says("spread", f"no route to the VIP {VIP}")


def test_a_router_that_does_not_forward(pool: Broken) -> None:
    with pool.sysctl("router", "net.ipv4.ip_forward", "0"):
        assert pool.doctor("router").says("forwarding", "this router does not forward IPv")


def test_a_mux_whose_kernel_forwards_is_not_broken(pool: Broken) -> None:
    with pool.sysctl("mux1", "net.ipv4.ip_forward", "1"):
        report = [finding for finding in pool.doctor("mux1").findings if finding.check == "forwarding"]
        assert {finding.state for finding in report} == {"ok"}
        assert any("the mux keeps VIP packets from the kernel" in finding.seen for finding in report)


def test_a_backend_that_replies_through_the_mux(pool: Broken) -> None:
    with pool.changed(
        "host1",
        "ip route replace default via 10.0.1.2 dev eth0 onlink",
        "ip route replace default via 10.1.1.1 advmss 1440",
    ):
        assert pool.doctor("host1").says("replies", "through 10.0.1.2, a mux")
