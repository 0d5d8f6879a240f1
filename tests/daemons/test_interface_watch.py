"""The daemon's interface vanishes: waited out without cost; a recreated one is opened again, by mux and agent."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute, NetNS

from lbmux.lab.lab import Lab
from lbmux.lab.namespaces import set_route
from lbmux.lab.topology import Topology, ananta
from lbmux.lab.topology_builder import configure
from tests.api.asking import ask
from tests.daemons.at_hosts import serve, serving, whoami
from tests.daemons.running_daemons import Daemon, running
from tests.lab.routed import until
from tests.labs import built

pytestmark = pytest.mark.root
DRIVERS = pytest.mark.parametrize(
    ("mux_driver", "agent_driver"),
    [("packet", ("--driver", "tun")), ("xdp", ("--driver", "xdp", "--detach-on-exit"))],
    ids=["user space", "kernel"],
)
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One of its own, since links are taken away."""
    topology: Topology = ananta()
    with built(topology, f"gone{os.getpid()}", programs=False) as lab, serving(lab):
        one_mux(lab)
        yield lab


def one_mux(lab: Lab) -> None:
    def route() -> None:
        with IPRoute() as ip:
            ip.route("replace", dst="192.0.2.1/32", gateway="10.0.1.2")

    lab.inside("router", route)


def take_away(lab: Lab, node: str) -> None:
    def delete() -> None:
        with IPRoute() as ip:
            ip.link("del", index=ip.link_lookup(ifname="eth0")[0])

    lab.inside(node, delete)


def bring_back(lab: Lab, node: str) -> None:
    """The link as the topology has it.

    The node's end gets its name last: the other end refuses to change its offloads once the daemon's program is here.
    """
    (link,) = (link for link in lab.topology.links if node in (link.a.node, link.b.node))
    near, far = (link.a, link.b) if link.a.node == node else (link.b, link.a)
    with NetNS(lab.namespace(far.node)) as ip:
        peer = {"ifname": "unnamed", "net_ns_fd": lab.namespace(near.node)}
        ip.link("add", ifname=far.interface, kind="veth", peer=peer)
    lab.inside(far.node, lambda: configure(far, link.mtu))
    with NetNS(lab.namespace(near.node)) as ip:
        ip.link("set", index=ip.link_lookup(ifname="unnamed")[0], ifname=near.interface)
    lab.inside(near.node, lambda: configure(near, link.mtu))
    for route in lab.topology.node(node).routes:
        lab.inside(node, lambda route=route: set_route(route))
    one_mux(lab)


def cpu_s(daemon: Daemon) -> float:
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def state(daemon: Daemon) -> str:
    return str(ask(daemon.control, "runtime")["interface_state"])


@DRIVERS
@pytest.mark.parametrize("role", ["mux", "agent"])
def test_a_vanished_interface_costs_nothing_and_is_opened_again(
    lab: Lab, mux_driver: str, agent_driver: tuple[str, ...], role: str
) -> None:
    serve(lab)
    node = {"mux": "mux1", "agent": "host1"}[role]
    options = ("--driver", mux_driver, "--xdp-mode", "generic", "--detach-on-exit")
    with running(lab, "mux1", "mux", *options) as mux, running(lab, "host1", "agent", *agent_driver) as agent:
        daemon = {"mux": mux, "agent": agent}[role]
        assert whoami(lab) == "h1"
        for _ in range(2):
            take_away(lab, node)
            until(lambda: state(daemon) == "gone")
            assert "eth0 is gone" in daemon.log
            before, begun = cpu_s(daemon), time.monotonic()
            while time.monotonic() < begun + 1:
                time.sleep(0.2)
            assert cpu_s(daemon) - before < 0.1, "CPU seconds in a second of waiting"
            bring_back(lab, node)
            until(lambda: state(daemon) == "present")
            until(lambda: answers(lab))
            until(lambda: ask(mux.control, "runtime")["host_forwarding"]["vips_filtered"])


def test_frames_are_read_again_after_the_interface_was_down(lab: Lab) -> None:
    """libuv polls no more where the descriptor had an error."""
    serve(lab)

    def flap() -> None:
        with IPRoute() as ip:
            for state in ("down", "up"):
                ip.link("set", index=ip.link_lookup(ifname="eth0")[0], state=state)

    with running(lab, "mux1", "mux") as mux, running(lab, "host1", "agent"):
        lab.inside("mux1", flap)
        mux.wait_for("interface eth0: network is down")
        (route,) = (route for route in lab.topology.node("mux1").routes if ":" not in route.via[0])
        lab.inside("mux1", lambda: set_route(route))  # IPv6 lost its address, too
        until(lambda: answers(lab))


def answers(lab: Lab) -> bool:
    try:
        return whoami(lab) == "h1"
    except OSError:
        return False
