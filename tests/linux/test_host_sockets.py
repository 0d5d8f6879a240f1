"""Sockets in other network namespaces of the machine, by the addresses that these have."""

import os
import socket
import time
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address

import pytest
from pyroute2 import IPRoute, netns

from lbmux.addresses import port_to_wire, to_pair
from lbmux.lab.namespaces import inside
from lbmux.linux import network_namespaces
from lbmux.linux.host_sockets import SEARCH_S, HostSockets

pytestmark = pytest.mark.root
DIPS = {4: "10.66.0.1", 6: "2001:db8:66::1"}
ADDRESSES = frozenset(map(ip_address, DIPS.values()))
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
IFA_F_NODAD = 0x02
"""The address is usable at once, without a search for duplicates (linux/if_addr.h)."""


def give_addresses() -> None:
    with IPRoute() as ip:
        index = ip.link_lookup(ifname="lo")[0]
        ip.link("set", index=index, state="up")
        for version, address in DIPS.items():
            prefix = {4: 32, 6: 128}[version]
            ip.addr("add", index=index, address=address, prefixlen=prefix, flags=IFA_F_NODAD)


def wait_for_routes() -> None:
    """Wait until the addresses can be reached: the kernel adds the routes to IPv6 addresses in its own time."""
    end = time.monotonic() + 10
    for version, address in DIPS.items():
        with socket.socket(FAMILIES[version], socket.SOCK_DGRAM) as asked:
            while asked.connect_ex((address, 9)):
                assert time.monotonic() < end
                time.sleep(0.01)


@pytest.fixture
def container() -> Iterator[str]:
    """A namespace with both addresses, as a container has."""
    name = f"sockets{os.getpid()}"
    netns.create(name)
    inside(name, give_addresses)
    inside(name, wait_for_routes)
    yield name
    if name in netns.listnetns():
        netns.remove(name)


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def sockets(now: list[float]) -> Iterator[HostSockets]:
    with HostSockets([ip_address("127.0.0.1")], lambda: now[0]) as made:
        yield made


@pytest.mark.parametrize("family", [4, 6])
def test_round_trips_of_connections_in_another_namespace_are_known(
    container: str, sockets: HostSockets, family: int
) -> None:
    dip = ip_address(DIPS[family])
    listener = inside(container, lambda: socket.create_server((DIPS[family], 0), family=FAMILIES[family]))
    client = inside(container, lambda: socket.create_connection(listener.getsockname()[:2]))
    with listener, client, listener.accept()[0] as server:
        server.sendall(b"answer")
        assert client.recv(6) == b"answer"
        assert to_pair(dip) not in map(tuple, sockets.round_trips()[0]["local"])
        sockets.look_for(ADDRESSES)
        found, rtt_ms = sockets.round_trips()
        is_mine = (found["local"] == to_pair(dip)).all(axis=1)
        is_mine &= found["local_port"] == port_to_wire(listener.getsockname()[1])
        assert is_mine.sum() == 1 and 0 < rtt_ms[is_mine][0] < 1000


@pytest.mark.parametrize("family", [4, 6])
def test_a_connection_in_another_namespace_is_found(container: str, sockets: HostSockets, family: int) -> None:
    dip = ip_address(DIPS[family])
    listener = inside(container, lambda: socket.create_server((DIPS[family], 0), family=FAMILIES[family]))
    port = listener.getsockname()[1]
    with listener, inside(container, lambda: socket.create_connection((DIPS[family], port))) as client:
        ends = dip, port, dip, client.getsockname()[1]
        assert not sockets.has(*ends)
        sockets.look_for({dip, ip_address("127.0.0.1")})
        assert sockets.elsewhere == {dip}
        assert sockets.has(*ends) and not sockets.has(dip, port, dip, port)
        rows = sockets.all()
        assert to_pair(dip) in {tuple(pair) for pair in rows["local"].tolist()}


def test_both_namespaces_with_an_address_are_asked(container: str, sockets: HostSockets) -> None:
    """The first one has it, but not the connection."""
    other = f"{container}-0"
    netns.create(other)
    try:
        inside(other, give_addresses)
        sockets.look_for(ADDRESSES)
        for name in (container, other):
            with inside(name, lambda: socket.create_server((DIPS[4], 0))) as listener:
                at, dip = listener.getsockname(), ip_address(DIPS[4])
                with inside(name, partial(socket.create_connection, at)) as client:
                    assert sockets.has(dip, at[1], dip, client.getsockname()[1])
    finally:
        netns.remove(other)


def test_other_sockets_of_that_namespace_are_not_the_hosts(container: str, sockets: HostSockets) -> None:
    """Containers have the same addresses on loopback as the host."""
    listener = inside(container, lambda: socket.create_server(("127.0.0.1", 0)))
    with listener, inside(container, lambda: socket.create_connection(listener.getsockname())) as client:
        sockets.look_for(ADDRESSES)
        ports = {int.from_bytes(port.to_bytes(2, "little"), "big") for port in sockets.all()["remote_port"].tolist()}
        assert client.getsockname()[1] not in ports


def test_a_namespace_that_is_gone_is_released(container: str, sockets: HostSockets, now: list[float]) -> None:
    sockets.look_for(ADDRESSES)
    assert sockets.elsewhere == ADDRESSES
    netns.remove(container)
    sockets.look_for(ADDRESSES)
    assert sockets.elsewhere == ADDRESSES, "searches have a pause"
    now[0] = 2 * SEARCH_S
    sockets.look_for(ADDRESSES)
    assert sockets.elsewhere == frozenset()
    sockets.close_retired()


def test_addresses_no_longer_wanted_are_dropped(container: str, sockets: HostSockets) -> None:
    sockets.look_for(ADDRESSES)
    sockets.look_for(())
    assert sockets.elsewhere == frozenset()


def test_a_namespace_that_may_not_be_entered_is_left_out(
    container: str, sockets: HostSockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(network_namespaces, "enter", refuse)
    sockets.look_for(ADDRESSES)
    assert sockets.elsewhere == frozenset()
