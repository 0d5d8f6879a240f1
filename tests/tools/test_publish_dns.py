"""Maps at a real gdnsd, and behind Unbound, in a separate namespace."""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from pyroute2 import IPRoute, netns

from lbmux.errors import SetupError
from lbmux.lab import namespaces
from lbmux.lab.dns_queries import ask
from lbmux.steering.steering_map import SteeringMap, Weights
from lbmux.tools.publish_dns import publish

pytestmark = pytest.mark.root

NAME, SERVER, RESOLVER = "www.example.net", "127.0.0.1", "127.0.0.2"
CLIENTS = {"g1": "198.51.100.7", "g2": "203.0.113.7"}
POPS = {"fra": ("192.0.2.1", "2001:db8::1"), "ams": ("192.0.2.2", "2001:db8::2")}
ADDRESS = {pop: addresses[0] for pop, addresses in POPS.items()}
UNBOUND = """\
server:
  directory: "{directory}"
  username: ""
  chroot: ""
  pidfile: ""
  use-syslog: no
  interface: 127.0.0.2
  access-control: 0.0.0.0/0 allow
  do-not-query-localhost: no
  module-config: "subnetcache iterator"
  send-client-subnet: 127.0.0.1
  cache-min-ttl: {min_ttl_s}
stub-zone:
  name: "www.example.net"
  stub-addr: 127.0.0.1
"""


def steering_map(g1: Weights, g2: Weights, ttl_s: int = 1, **more: Mapping[str, str]) -> SteeringMap:
    groups = {ip_network("198.51.100.0/24"): g1, ip_network("203.0.113.0/24"): g2, ip_network("2001:db8:7::/56"): g2}
    return SteeringMap(NAME, ttl_s, POPS, groups, "ams", **more)


APART = steering_map({"fra": 1.0}, {"ams": 1.0})
SWAPPED = steering_map({"ams": 1.0}, {"fra": 1.0})


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """A namespace whose loopback has the addresses of clients and resolvers."""
    name = f"dns{os.getpid()}"
    netns.create(name)

    def prepare() -> None:
        with IPRoute() as ip:
            ip.link("set", index=1, state="up")
            for address in (*CLIENTS.values(), "192.0.2.99"):
                ip.addr("add", index=1, address=address, prefixlen=32)

    try:
        namespaces.inside(name, prepare)
        yield name
    finally:
        namespaces.remove(name)


@contextlib.contextmanager
def running(namespace: str, *command: str) -> Iterator[None]:
    """Run a server in the namespace until the block ends; gdnsd's successor is stopped by its own command."""
    with subprocess.Popen(["ip", "netns", "exec", namespace, *command], stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


@contextlib.contextmanager
def gdnsd(namespace: str, directory: Path) -> Iterator[None]:
    with running(namespace, "gdnsd", "-c", str(directory / "current"), "start"):
        try:
            wait(lambda: bool(look_up(namespace, subnet="198.51.100.0/24")))
            yield
        finally:
            subprocess.run(["gdnsdctl", "-c", directory / "current", "stop"], capture_output=True, check=False)


def put(namespace: str, made: SteeringMap, directory: Path) -> int:
    return namespaces.inside(namespace, lambda: publish(made, directory, (ip_address(SERVER),)))


def look_up(namespace: str, server: str = SERVER, kind: str = "A", subnet: str | None = None, source: str = "") -> str:
    """Return the one address of the answer; empty without one."""

    def work() -> str:
        with contextlib.suppress(OSError):
            return "".join(address for address, _ in ask(server, NAME, kind, subnet, source))
        return ""

    return namespaces.inside(namespace, work)


@contextlib.contextmanager
def asking(namespace: str) -> Iterator[list[str]]:
    """Ask without a pause until the block ends; a query without an answer is an empty text in the list."""
    answers, is_over = list[str](), threading.Event()

    def work() -> None:
        while not is_over.is_set():
            answers.append(look_up(namespace, subnet="198.51.100.0/24"))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield answers
    finally:
        is_over.set()
        thread.join()


def wait(done: Callable[[], bool], timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_answers_by_client_subnet_in_both_families(namespace: str, tmp_path: Path) -> None:
    put(namespace, APART, tmp_path)
    with gdnsd(namespace, tmp_path):
        by_subnet = {subnet: look_up(namespace, subnet=subnet) for subnet in ("198.51.100.0/24", "203.0.113.0/25")}
        assert by_subnet == {"198.51.100.0/24": ADDRESS["fra"], "203.0.113.0/25": ADDRESS["ams"]}
        assert look_up(namespace, kind="AAAA", subnet="198.51.100.0/24") == "2001:db8::1"
        assert look_up(namespace, kind="AAAA", subnet="2001:db8:7::/56") == "2001:db8::2"
        assert look_up(namespace, subnet="192.0.2.0/24") == ADDRESS["ams"]  # the default


def test_without_a_subnet_the_resolver_counts(namespace: str, tmp_path: Path) -> None:
    put(namespace, steering_map({"ams": 1.0}, {"ams": 1.0}, resolvers={"192.0.2.99": "fra"}), tmp_path)
    with gdnsd(namespace, tmp_path):
        assert look_up(namespace, source="192.0.2.99") == ADDRESS["fra"]
        assert look_up(namespace, source=CLIENTS["g1"]) == ADDRESS["ams"]


def test_weights_divide_the_answers(namespace: str, tmp_path: Path) -> None:
    put(namespace, steering_map({"fra": 0.8, "ams": 0.2}, {"ams": 1.0}), tmp_path)
    with gdnsd(namespace, tmp_path):
        addresses = [look_up(namespace, subnet="198.51.100.0/24") for _ in range(200)]
        assert 130 < addresses.count(ADDRESS["fra"]) < 190 and addresses.count(ADDRESS["ams"]) > 10


def test_a_swap_loses_no_query_and_a_bad_map_changes_nothing(namespace: str, tmp_path: Path) -> None:
    assert put(namespace, APART, tmp_path) == 1
    with gdnsd(namespace, tmp_path):
        with asking(namespace) as answers:
            for revision, made in enumerate((SWAPPED, APART, SWAPPED), start=2):
                asked = len(answers)
                assert put(namespace, made, tmp_path) == revision
                wait(lambda asked=asked: len(answers) > asked + 10)
        assert set(answers) == {ADDRESS["fra"], ADDRESS["ams"]}
        assert look_up(namespace, subnet="198.51.100.0/24") == ADDRESS["ams"]
        assert sorted(path.name for path in tmp_path.glob("map-*")) == ["map-3", "map-4"]
        bad = SteeringMap(NAME, 1, POPS | {"fra": ()}, {ip_network("198.51.100.0/24"): {"fra": 1.0}}, "ams")
        with pytest.raises(SetupError, match="the previous map stays in force"):
            put(namespace, bad, tmp_path)
        assert look_up(namespace, subnet="198.51.100.0/24") == ADDRESS["ams"]
        assert (tmp_path / "current").resolve().name == "map-4"
    with gdnsd(namespace, tmp_path):  # restarted without lbmux
        assert look_up(namespace, subnet="198.51.100.0/24") == ADDRESS["ams"]


@pytest.mark.parametrize("min_ttl_s", [0, 600])
def test_behind_unbound_clients_follow_when_their_answer_expires(
    min_ttl_s: int, namespace: str, tmp_path: Path
) -> None:
    (tmp_path / "unbound.conf").write_text(UNBOUND.format(directory=tmp_path, min_ttl_s=min_ttl_s))
    put(namespace, APART, tmp_path)

    def found() -> list[str]:
        return [look_up(namespace, RESOLVER, source=source) for source in CLIENTS.values()]

    with gdnsd(namespace, tmp_path), running(namespace, "unbound", "-d", "-c", str(tmp_path / "unbound.conf")):
        wait(lambda: found() == [ADDRESS["fra"], ADDRESS["ams"]])
        put(namespace, SWAPPED, tmp_path)
        if min_ttl_s:  # the resolver keeps its answers, whatever their TTL
            assert found() == [ADDRESS["fra"], ADDRESS["ams"]]
        else:
            wait(lambda: found() == [ADDRESS["ams"], ADDRESS["fra"]], 3)
