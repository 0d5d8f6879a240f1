"""Ping and trace of a VIP, by the ordinary tools, through a mux and agents as processes."""

import contextlib
import re

import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import rt_type
from scapy.layers.inet import ICMP, IP
from scapy.packet import Raw

from lbmux.lab.lab import Lab
from lbmux.lab.namespaces import add_address, remove_address
from tests.daemons.running_daemons import running, send
from tests.daemons.slow_lab import CLIENT, DIPS, VIPS, balanced, configuration, counters, to_one_mux
from tests.lab.routed import until

pytestmark = pytest.mark.root
FAMILIES = pytest.mark.parametrize("family", [4, 6])


def ping(lab: Lab, family: int, *options: str) -> tuple[int, str]:
    """(answers, what it said)"""
    done = lab.run(
        "client", ["ping", f"-{family}", "-n", "-c", "3", "-i", "0.2", "-W", "1", *options, VIPS[family]],
        capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    match = re.search(r"(\d+) received", done.stdout)
    assert match, done.stdout + done.stderr
    return int(match[1]), done.stdout


@pytest.mark.parametrize("options", [(), ("--driver", "xdp", "--detach-on-exit")], ids=["packet", "xdp"])
@FAMILIES
def test_ping(lab: Lab, family: int, options: tuple[str, ...]) -> None:
    with balanced(lab, hosts=(1,), options=options) as mux:
        answers, output = ping(lab, family)
        assert answers == 3, output
        assert counters(mux)["echo_answered"] == 3


@FAMILIES
def test_no_answer_while_no_backend_takes_flows(lab: Lab, family: int) -> None:
    config = configuration(hosts=(1,))
    for service in config["services"]:
        service["backends"] = []
    lab.write_config(config)
    to_one_mux(lab)
    with running(lab, "mux1", "mux") as mux:
        assert ping(lab, family)[0] == 0
        assert counters(mux)["echo_dropped"] == 3


def test_large_ping_that_fits_and_the_one_that_does_not(lab: Lab) -> None:
    with balanced(lab, hosts=(1,)):
        assert ping(lab, 4, "-M", "do", "-s", "1472")[0] == 3
        assert ping(lab, 6, "-M", "do", "-s", "1452")[0] == 3


@FAMILIES
def test_trace(lab: Lab, family: int) -> None:
    """The mux is the second hop of the way to a service, after the router; and there the path gets narrower.

    Every probe has another port, so the service has any.
    """
    backends = [{"name": "h1", "dip": DIPS[family].format(1)}]
    any_port = {"name": "any", "vip": VIPS[family], "protocol": "udp", "port": "any", "backends": backends}
    with balanced(lab, hosts=(1,), services=[any_port]) as mux:
        done = lab.run(
            "client", ["tracepath", f"-{family}", "-n", "-m", "3", VIPS[family]],
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
        hops = re.findall(r"^ *(\d+): +(\S+)", done.stdout, re.MULTILINE)
        assert ("2", VIPS[family]) in hops, done.stdout
        path_mtu = {4: 1480, 6: 1460}[family]
        assert f"pmtu {path_mtu}" in done.stdout, done.stdout
        counts = counters(mux)
        assert counts["time_exceeded"] >= 1 and counts["too_big_answered"] >= 1


def test_an_error_about_an_unknown_flow_is_dropped(lab: Lab) -> None:
    quote = bytes(IP(src=VIPS[4], dst=CLIENT, proto=6) / Raw(bytes([0, 99, 1, 1, 0, 0, 0, 0])))
    with balanced(lab, hosts=(1,)) as mux:
        send(lab, "client", bytes(IP(src=CLIENT, dst=VIPS[4]) / ICMP(type=3, code=4, nexthopmtu=600) / Raw(quote)))
        assert ping(lab, 4)[0] == 3  # the ping after it: the mux still answers
        assert counters(mux)["icmp_no_flow"] == 1


def is_local(address: str) -> bool:
    """Return whether the kernel has the route to an own address, which it adds a little after an IPv6 address."""
    with IPRoute() as ip, contextlib.suppress(NetlinkError):
        return bool(ip.route("get", dst=address)[0]["type"] == rt_type["local"])
    return False


@FAMILIES
def test_ping_forwarded_by_setting_is_answered_by_a_host_that_has_the_vip(lab: Lab, family: int) -> None:
    options = ("--mode", "local")
    vip = f"{VIPS[family]}/{32 if family == 4 else 128}"
    settings = {"slowpath": {"echo": "forward"}}
    with balanced(lab, hosts=(1,), agent_options=options, **settings) as mux:
        lab.inside("host1", lambda: add_address("lo", vip))
        until(lambda: lab.inside("host1", lambda: is_local(VIPS[family])), 10)
        try:
            answers, output = ping(lab, family)
        finally:
            lab.inside("host1", lambda: remove_address("lo", vip))
        assert answers == 3, output
        assert counters(mux)["echo_forwarded"] == 3
