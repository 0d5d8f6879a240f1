"""A two-armed host: tunnels come in by one interface, replies leave by another one, which routes may add later."""

import socket
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute, NetNS

from lbmux.lab.lab import Lab
from lbmux.tools.doctor.node_state import NodeState
from lbmux.tools.doctor.run_checks import examine
from tests.api.asking import ask
from tests.daemons.slow_lab import CLIENT, CLIENT6, DIPS, PORT, VIPS, balanced, client_socket, served
from tests.lab.routed import until

pytestmark = pytest.mark.root
ENDS = {"host1": ("10.77.0.2/24", "2001:db8:77::2/64"), "client": ("10.77.0.1/24", "2001:db8:77::1/64")}
EVERYWHERE = {4: ("203.0.113.1/32", "10.77.0.1"), 6: ("3fff::1/128", "2001:db8:77::1")}
CLIENTS = {4: (f"{CLIENT}/32", "10.77.0.1"), 6: (f"{CLIENT6}/128", "2001:db8:77::1")}
DRIVERS = pytest.mark.parametrize("driver", [("--driver", "tun"), ("--driver", "xdp", "--detach-on-exit")],
                                  ids=["tun", "xdp"])  # fmt: skip


@pytest.fixture
def arm(lab: Lab) -> Iterator[str]:
    """Another link between host1 and the client."""
    with NetNS(lab.namespace("host1")) as ip:
        peer = {"ifname": "arm0", "net_ns_fd": lab.namespace("client")}
        ip.link("add", ifname="arm0", kind="veth", peer=peer)
    for node in ENDS:
        lab.inside(node, lambda node=node: up(ENDS[node]))
    yield "arm0"

    def remove() -> None:
        with IPRoute() as ip:
            ip.link("del", index=ip.link_lookup(ifname="arm0")[0])

    lab.inside("host1", remove)


def up(addresses: tuple[str, ...]) -> None:
    with IPRoute() as ip:
        index = ip.link_lookup(ifname="arm0")[0]
        for text in addresses:
            address, length = text.split("/")
            ip.addr("add", index=index, address=address, prefixlen=int(length))
        ip.link("set", index=index, state="up")


def route_by(arm: str) -> None:
    with IPRoute() as ip:
        for ways in (CLIENTS, EVERYWHERE):
            for destination, gateway in ways.values():
                ip.route("replace", dst=destination, gateway=gateway)


def echo(sock: socket.socket, host: int) -> None:
    while True:
        connection, _ = sock.accept()
        with connection:
            connection.sendall(connection.recv(100))


def asked(lab: Lab, family: int) -> bytes:
    with client_socket(lab, family, "tcp") as client:
        client.settimeout(3)
        client.connect((VIPS[family], PORT["tcp"]))
        client.sendall(b"hello")
        return client.recv(100)


@DRIVERS
def test_replies_are_translated_wherever_routes_lead(lab: Lab, arm: str, driver: tuple[str, ...]) -> None:
    control = lab.directory / "host1-test.sock"
    with (
        balanced(lab, (1,), agent_options=driver),
        served(lab, 4, "tcp", echo, (1,)),
        served(lab, 6, "tcp", echo, (1,)),
    ):
        assert [asked(lab, family) for family in VIPS] == [b"hello"] * 2
        lab.inside("host1", lambda: route_by(arm))
        if "xdp" in driver:
            until(lambda: arm in ask(control, "runtime")["egress"])
        assert [asked(lab, family) for family in VIPS] == [b"hello"] * 2
        findings = lab.inside("host1", lambda: list(examine(NodeState("agent", control))))
        seen = [finding.seen for finding in findings if finding.check == "replies"]
        assert [f"on {arm}, bypassing the muxes" in one for one in seen] == [True, True], seen
        assert all(("translated at arm0, eth0" in one) == ("xdp" in driver) for one in seen)


def test_a_rule_by_source_before_the_agent_s_own_is_a_fault(lab: Lab) -> None:
    control, rule = lab.directory / "host1-test.sock", ["from", DIPS[4].format(1), "lookup", "main"]
    with balanced(lab, (1,), agent_options=("--driver", "tun")):
        for priority, state in (([], "fault"), (["priority", "9200"], "ok")):
            lab.run("host1", ["ip", "rule", "add", *rule, *priority], check=True)
            try:
                findings = lab.inside("host1", lambda: list(examine(NodeState("agent", control))))
            finally:
                lab.run("host1", ["ip", "rule", "del", *rule], check=True)
            four, six = [one for one in findings if one.check == "replies"]
            assert (four.state, six.state) == (state, "ok"), findings
            assert ("9117: from 10.1.1.2/32 lookup 254` comes before the agent's" in four.seen) == (state == "fault")


@DRIVERS
def test_nothing_is_left_at_the_other_interface(lab: Lab, arm: str, driver: tuple[str, ...]) -> None:
    with balanced(lab, (1,), agent_options=driver):
        pass
    shown = lab.run("host1", ["ip", "-j", "-d", "link", "show", arm], capture_output=True, text=True).stdout
    assert "tcx" not in shown and '"prog"' not in shown
