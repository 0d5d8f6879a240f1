"""An agent's count of its backends' connections, from its host's sockets."""

from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest

from lbmux.linux.sock_diag import LISTEN, SOCKETS
from lbmux.tables.agent_tables import AgentTables
from lbmux.tables.connection_counts import connections_by_backend, counted_by_pass
from tests.tables.test_agent_tables import HOST, MUX, config, service
from tests.tables.test_socket_sync import AgentHost, socket


def count(host: AgentHost, *sockets: tuple[Any, ...]) -> dict[tuple[str, str], int]:
    return dict(connections_by_backend(host.agent, host.socket_sync, np.array(list(sockets), SOCKETS)))


def key(host: AgentHost, number: int) -> tuple[str, str]:
    (names,) = ((s.name, b.name) for s, b in host.agent.served if s.name == f"s{number}")
    return names


def test_connections_through_vips_count() -> None:
    host = AgentHost(service(1), service(2, port=9090))
    clients = [socket(remote=f"198.51.100.{number}") for number in range(1, 4)]
    probe, listener, other = socket(remote=MUX), socket(state=LISTEN), socket(port=22)
    counts = count(host, *clients, socket(port=9090), probe, listener, other)
    assert counts == {key(host, 1): 3, key(host, 2): 1}
    assert count(host) == {}


def test_a_connection_that_several_vips_may_have_counts_once() -> None:
    host = AgentHost(service(1), service(2))
    assert sum(count(host, socket()).values()) == 1


@pytest.mark.parametrize("vip", ["192.0.2.1", "192.0.2.2"])
def test_a_host_with_the_vips_counts_by_vip(vip: str) -> None:
    host = AgentHost(service(1), service(2))
    host.agent = AgentTables(host.tables, [ip_address(HOST)], [], "local")
    host.agent.commit(host.agent.plan(config(service(1), service(2))))
    counts = count(host, socket(local=vip, port=80), socket(local=vip, port=81), socket(remote=MUX, local=vip, port=80))
    assert counts == {key(host, int(vip[-1])): 1}


def passed(host: AgentHost, *sockets: tuple[Any, ...]) -> dict[tuple[str, str], int]:
    return dict(counted_by_pass(host.agent, 1.0, host.socket_sync.find(np.array(list(sockets), SOCKETS))).counts)


def test_a_pass_names_backends_without_connections() -> None:
    host = AgentHost(service(1), service(2, port=9090))
    assert passed(host, socket()) == {key(host, 1): 1, key(host, 2): 0}


def test_a_pass_says_nothing_of_backends_that_it_cannot_tell_apart() -> None:
    host = AgentHost(service(1), service(2), service(3, port=9090))
    assert passed(host, socket()) == {key(host, 3): 0}
    assert passed(host) == {key(host, number): 0 for number in (1, 2, 3)}


def test_a_pass_says_nothing_of_backends_whose_sockets_are_elsewhere() -> None:
    host = AgentHost(service(1))
    host.agent.own = frozenset()
    assert passed(host) == {}
