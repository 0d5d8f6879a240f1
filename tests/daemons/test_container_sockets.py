"""A backend in a container beside its agent: the agent looks its sockets up where they are."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute, NetNS, netns

from lbmux.lab.lab import Lab
from lbmux.lab.namespaces import inside
from lbmux.lab.topology import VIP, VIP6
from lbmux.tools.doctor import flow_entries
from lbmux.tools.doctor.node_state import NodeState
from tests.api.asking import ask
from tests.daemons.running_daemons import STAY, configuration, running, service
from tests.lbmux_command import lbmux

pytestmark = pytest.mark.root
PORT, IDLE_S, PATIENCE_S = 9100, 1, 30.0
IDLE = {"untrusted_s": IDLE_S, "tcp_s": IDLE_S, "fin_s": IDLE_S, "udp_s": IDLE_S}
VIPS, HOSTS = {4: VIP, 6: VIP6}, {4: "10.1.1.2", 6: "2001:db8:1:1::2"}
DIPS, GATEWAYS = {4: "10.66.1.2", 6: "2001:db8:66::2"}, {4: "10.66.1.1", 6: "2001:db8:66::1"}
PREFIXES, FAMILIES = {4: 24, 6: 64}, {4: socket.AF_INET, 6: socket.AF_INET6}
FORWARDING = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")


def up(interface: str, addresses: dict[int, str], gateways: dict[int, str] | None = None) -> None:
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=interface)[0]
        for version, address in addresses.items():
            ip.addr("add", index=index, address=address, prefixlen=PREFIXES[version], flags=0x02)  # IFA_F_NODAD
        ip.link("set", index=index, state="up")
        for version, gateway in (gateways or {}).items():
            ip.route("add", gateway=gateway, oif=index, family=FAMILIES[version], dst="default")


def switch_forwarding(value: str) -> None:
    for name in FORWARDING:
        (Path("/proc/sys") / name).write_text(value)


@pytest.fixture
def container(lab: Lab) -> Iterator[str]:
    """A container on host1, behind its own link."""
    name = f"container{os.getpid()}"
    netns.create(name)
    with NetNS(lab.namespace("host1")) as ip:
        ip.link("add", ifname="to-cont", kind="veth", peer={"ifname": "eth0", "net_ns_fd": name})
    lab.inside("host1", lambda: up("to-cont", GATEWAYS))
    lab.inside("host1", lambda: switch_forwarding("1"))
    inside(name, lambda: up("eth0", DIPS, GATEWAYS))
    yield name
    lab.inside("host1", lambda: switch_forwarding("0"))
    lab.run("host1", ["ip", "link", "del", "to-cont"], check=True)
    netns.remove(name)
    lbmux("detach", "-i", "eth0", namespace=lab.namespace("host1")).check_returncode()
    for path in lab.directory.glob("*.tables"):
        path.unlink()


def configure(lab: Lab) -> None:
    services = [
        service(f"s{version}", PORT, [{"dip": DIPS[version], "host": HOSTS[version]}], vip=vip, idle=IDLE)
        for version, vip in VIPS.items()
    ]
    lab.write_config(configuration(*services) | {"muxes": ["10.0.1.2", "2001:db8:0:1::2"]})


def connected(lab: Lab, container: str, version: int) -> tuple[socket.socket, socket.socket]:
    """(client, server) of one connection that both ends have used."""
    family, dip = FAMILIES[version], DIPS[version]
    with inside(container, lambda: socket.create_server((dip, PORT), family=family)) as listener:
        listener.settimeout(10)
        client = lab.inside("client", lambda: socket.create_connection((VIPS[version], PORT), 10))
        server = listener.accept()[0]
    for end in (client, server):
        end.settimeout(PATIENCE_S)
    client.sendall(b"hello")
    assert server.recv(5) == b"hello"
    return client, server


def pushed(ends: list[tuple[socket.socket, socket.socket]]) -> None:
    """Send from the servers, and check that the clients receive it."""
    for client, server in ends:
        server.sendall(b"pushed")
        assert client.recv(6) == b"pushed"


@pytest.mark.parametrize("driver", ["tun", "xdp"])
def test_connections_outlive_silence_and_a_loss_of_all_entries(lab: Lab, container: str, driver: str) -> None:
    configure(lab)
    control = lab.directory / "host1-test.sock"
    with running(lab, "mux1", "mux"):
        with running(lab, "host1", "agent", "--driver", driver, STAY):
            assert ask(control, "runtime")["sockets_elsewhere"] == sorted(DIPS.values())
            ends = [connected(lab, container, version) for version in VIPS]
            time.sleep(3 * IDLE_S)  # the connection has to be silent
            pushed(ends)
            (finding,) = flow_entries.sockets(lab.inside("host1", lambda: NodeState("agent", control)))
            assert finding.state == "ok", finding
        lbmux("detach", "-i", "eth0", namespace=lab.namespace("host1")).check_returncode()
        for path in lab.directory.glob("*.tables"):
            path.unlink()
        with running(lab, "host1", "agent", "--driver", driver, STAY) as second:
            assert "restored the flow entries of 2 connections" in second.log
            pushed(ends)
        for client, server in ends:
            client.close()
            server.close()
