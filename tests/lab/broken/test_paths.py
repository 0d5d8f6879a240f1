"""The way from a mux to its hosts, link by link: next hop, route, width, tunnel, and whose packets they take."""

import json
from pathlib import Path

import pytest

from lbmux.api.control_client import ControlClient
from lbmux.api.requests import GetNeighbours
from tests.lab.broken.broken import WEB, Broken, until

pytestmark = pytest.mark.root


def test_wrong_mac(either: Broken) -> None:
    with either.changed(
        "mux1",
        "ip neighbour replace 10.0.1.1 lladdr 02:00:00:00:00:99 dev eth0 nud noarp",
        "ip neighbour del 10.0.1.1 dev eth0",
    ):
        until(lambda: "02:00:00:00:00:99" in either.explain(WEB))
        assert either.doctor("mux1").says("next hop", "wrong MAC: frames for host 10.1.1.2 go to 02:00:00:00:00:99")


def test_wrong_mac_of_ipv6(pool: Broken) -> None:
    with pool.changed(
        "mux1",
        "ip neighbour replace 2001:db8:0:1::1 lladdr 02:00:00:00:00:99 dev eth0 nud noarp",
        "ip neighbour del 2001:db8:0:1::1 dev eth0",
    ):
        known = pool.socket("mux1")
        asked = GetNeighbours()
        until(lambda: "02:00:00:00:00:99" in {line.mac for line in ControlClient(known).whole(asked).neighbours})
        seen = "wrong MAC: frames for host 2001:db8:1:1::2 go to 02:00:00:00:00:99"
        assert pool.doctor("mux1").says("next hop", seen)


def test_no_route(either: Broken) -> None:
    with either.changed("mux1", "ip route del default", "ip route add default via 10.0.1.1"):
        until(lambda: "MAC address is not known" in either.explain(WEB))
        assert either.doctor("mux1").says("next hop", "no route to host 10.1.1.2")


def test_mtu(either: Broken) -> None:
    with either.changed("router", "ip link set to-host1 mtu 1400", "ip link set to-host1 mtu 1500"):
        report = either.doctor("mux1")
        assert report.says("MTU", "MTU to host 10.1.1.2 is 1400 (from 10.0.1.1)")
        assert report.says("MTU", "MTU to host 2001:db8:1:1::2 is 1400 (from 2001:db8:0:1::1)")
    either.sh("mux1", "ip route flush cache; ip -6 route flush cache")


def test_strict_reverse_path_filter(either: Broken) -> None:
    with either.sysctl("router", "net.ipv4.conf.to-host1.rp_filter", "1"):
        assert either.doctor("router").says("rp_filter", "strict on to-host1")
        assert either.doctor("mux1").says("backend", "web/h1 at 10.1.1.2: no answer through the tunnel")


@pytest.mark.parametrize(
    ("kind", "name", "refused"),
    [
        ("gue1", "GUE", "port unreachable"),
        ("gre", "GRE", "protocol unreachable"),
        ("geneve", "Geneve", "port unreachable"),
    ],
)
def test_a_small_path_mtu_and_a_missing_agent_with_other_tunnels(
    pool: Broken, tmp_path: Path, kind: str, name: str, refused: str
) -> None:
    path = tmp_path / "services.yaml"
    path.write_text(json.dumps(pool.plain | {"tunnel": {"kind": kind}}))
    sound = pool.doctor("mux1", file=path)
    assert not sound.faults
    hosts = ("10.1.1.2", "2001:db8:1:1::2", "10.1.2.2", "10.1.3.2", "2001:db8:1:3::2")
    fine = {one.seen for one in sound.findings if (one.check, one.state) == ("MTU", "ok")}
    assert fine == {f"1500 bytes reach host {host}, tunnel included ({name})" for host in hosts}
    with (
        pool.changed("router", "ip link set to-host2 mtu 1400", "ip link set to-host2 mtu 1500"),
        pool.without("host1", "agent"),
    ):
        assert pool.command("host1", "detach", "-i", "eth0").returncode == 0  # otherwise the host's replies are held
        report = pool.doctor("mux1", file=path)
    seen = f"web/h1 at 10.1.1.2: agent not running: the host answers {refused} to {name}"
    assert report.says("backend", seen) and report.says("MTU", "MTU to host 10.1.2.2 is 1400 (from 10.0.1.1)")
    pool.sh("mux1", "ip route flush cache; ip -6 route flush cache")


def test_a_mux_that_the_agents_do_not_know(pool: Broken) -> None:
    """At a host that keeps reporting it, and that no other test uses."""
    with pool.config(lambda config: config.update(muxes=["10.0.2.2"]), "host2"):
        assert pool.doctor("mux1").says("backend", "web/h2 at 10.1.2.2: no answer through the tunnel")
        assert pool.doctor("host2").says("not_a_mux", "packets were tunnelled from an address that is not a mux")
