"""The other published systems: each is brought up, serves real TCP, and survives one failure."""

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest
from pyroute2 import IPRoute

from lbmux.lab import processes
from lbmux.lab.lab import Lab
from lbmux.lab.systems.built_in import TOPOLOGIES
from lbmux.lab.systems.cloudflare import balanced
from lbmux.lab.systems.in_ipv6 import in_ipv6
from lbmux.lab.systems.seesaw import ACTIVE, MUXES
from lbmux.lab.topology import ECHO_PORT, SERVER_ECHO_PORT, VIP, VIP6
from lbmux.lab.traffic_client import traffic
from tests.lab.routed import Router, until, ways
from tests.labs import built

SEARCH = "/usr/sbin:/usr/local/sbin:/usr/bin"
RECOVERS_S = 20.0
_numbers = count()


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program, path=SEARCH) is None, reason=f"{program} is not installed")


pytestmark = [pytest.mark.root, needs("bird")]


@contextmanager
def up(system: str) -> Iterator[Lab]:
    with built(TOPOLOGIES[system](), f"y{os.getpid()}x{next(_numbers)}", "packet") as lab:
        yield lab


def answering(lab: Lab, connections: int = 24, vip: str = VIP) -> set[str]:
    """Return the names of the servers that answer new connections, or an empty name for a connection that fails."""
    with traffic(lab, "client", vip, ECHO_PORT, "--connections", str(connections)) as client:
        return {one["backend"] for one in client.first["connections"]}


def until_answered(lab: Lab, by: set[str], vip: str = VIP) -> None:
    until(lambda: answering(lab, vip=vip) == by, RECOVERS_S, 0.1)


def router_has(lab: Lab, gateways: set[str]) -> Callable[[], bool]:
    return lambda: ways(Router(lab)) == {VIP: gateways}


def test_edges_share_the_connections_and_a_killed_one_loses_its_own() -> None:
    with up("cloudflare") as lab:
        until(router_has(lab, {"10.1.1.2", "10.1.2.2", "10.1.3.2"}), RECOVERS_S)
        until_answered(lab, {"h1", "h2", "h3"})
        processes.kill(lab.process("host1", "edge"), signal.SIGKILL)
        until(router_has(lab, {"10.1.2.2", "10.1.3.2"}), RECOVERS_S)
        until_answered(lab, {"h2", "h3"})


def test_the_nearer_pop_answers_except_while_its_link_is_cut() -> None:
    near, far = {"10.255.1.2"}, {"10.255.2.2"}
    with up("cloudflare-anycast") as lab:
        router = Router(lab)
        until(router_has(lab, near), RECOVERS_S)
        until_answered(lab, {"h1", "h2"})
        router.set_link("to-pop1", "down")
        until(router_has(lab, far), RECOVERS_S)
        until_answered(lab, {"h3", "h4"})
        router.set_link("to-pop1", "up")
        until(router_has(lab, near), RECOVERS_S)
        processes.kill(lab.process("pop1", "bird"), signal.SIGKILL)
        until(router_has(lab, far), RECOVERS_S)
        until_answered(lab, {"h3", "h4"})


def test_edges_that_balance_share_the_connections_over_both_pops_and_a_killed_one_takes_only_its_own() -> None:
    with up("cloudflare-balanced") as lab:
        until(router_has(lab, {"10.255.1.2"}), RECOVERS_S)
        until_answered(lab, {"h1", "h2", "h3", "h4"})
        with traffic(lab, "client", VIP, ECHO_PORT, "--connections", "24") as client:
            processes.kill(lab.process("host1", "edge"), signal.SIGKILL)
            until_answered(lab, {"h2", "h3", "h4"})
            broken = {one["backend"] for one in client.report()["connections"] if one["broken"]}
        assert broken <= {"h1"}


def test_a_system_in_ipv6_has_its_service_there() -> None:
    topology = in_ipv6(balanced(), "balanced6")
    with built(topology, f"y{os.getpid()}x{next(_numbers)}", "packet") as lab:
        until(lambda: ways(Router(lab), "-6") == {VIP6: {"2001:db8:255:1::2"}}, RECOVERS_S)
        until_answered(lab, {"h1", "h2", "h3", "h4"}, VIP6)
        processes.kill(lab.process("host1", "edge"), signal.SIGKILL)
        until_answered(lab, {"h2", "h3", "h4"}, VIP6)
        assert ways(Router(lab)) == {}


def proxies(lab: Lab) -> set[str]:
    """Addresses of the hosts whose HAProxy has connections with the application servers, while a client has many."""
    command = ["ss", "-Htn", "state", "established", "sport", "=", f":{SERVER_ECHO_PORT}"]
    with traffic(lab, "client", VIP, ECHO_PORT, "--connections", "24") as client:
        if {one["backend"] for one in client.first["connections"]} != {"app1", "app2"}:
            return set()
        outputs = [lab.run(node, command, capture_output=True, text=True).stdout for node in ("app1", "app2")]
    peers = Counter(line.split()[-1].rpartition(":")[0] for text in outputs for line in text.splitlines())
    return {address for address, connections in peers.items() if connections > 1}  # one may be a health check


@needs("haproxy")
def test_proxies_end_the_connections_and_a_killed_one_or_a_killed_mux_is_got_over() -> None:
    with up("facebook") as lab:
        until(lambda: proxies(lab) == {"10.1.1.2", "10.1.2.2", "10.1.3.2"}, RECOVERS_S, 0.1)
        processes.kill(lab.process("host1", "haproxy"), signal.SIGKILL)
        until(lambda: proxies(lab) == {"10.1.2.2", "10.1.3.2"}, RECOVERS_S, 0.1)
        processes.kill(lab.process("mux1", "mux"), signal.SIGKILL)
        until(router_has(lab, {"10.0.2.2"}), RECOVERS_S)
        until_answered(lab, {"app1", "app2"})


def active(lab: Lab) -> set[str]:
    """The muxes that have the address to which the router sends."""

    def has_it() -> bool:
        with IPRoute() as ip:
            return bool(ip.get_addr(address=ACTIVE))

    return {name for name in MUXES if lab.inside(name, has_it)}


@needs("keepalived")
def test_one_mux_is_active_and_the_other_takes_over_when_it_is_killed_or_frozen() -> None:
    with up("seesaw") as lab:
        until(lambda: active(lab) == {"mux1"}, RECOVERS_S, 0.01)
        until_answered(lab, {"h1", "h2"})
        with traffic(lab, "client", VIP, ECHO_PORT, "--connections", "24") as client:
            mux = lab.process("mux1", "mux")
            processes.kill(mux, signal.SIGSTOP)
            until(lambda: active(lab) == {"mux2"}, RECOVERS_S, 0.01)
            processes.kill(mux, signal.SIGCONT)
            until(lambda: active(lab) == {"mux1"}, RECOVERS_S, 0.01)
            processes.kill(mux, signal.SIGKILL)
            until(lambda: active(lab) == {"mux2"}, RECOVERS_S, 0.01)
            until_answered(lab, {"h1", "h2"})
            assert not [one["broken"] for one in client.report()["connections"] if one["broken"]]


def test_maglevs_weights_are_the_shares_of_connections() -> None:
    with up("maglev") as lab:
        until_answered(lab, {"h1", "h2"})
        with traffic(lab, "client", VIP, ECHO_PORT, "--connections", "300") as client:
            by = Counter(one["backend"] for one in client.first["connections"])
        assert by.keys() == {"h1", "h2"} and 150 < by["h2"] < 250  # 200 expected, with a deviation of 8
