"""The host's connections, by real ones on loopback."""

import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from lbmux.control.connections import Connections

FAMILIES = pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])


@pytest.fixture
def connections() -> Iterator[Connections]:
    with Connections() as made:
        yield made


@FAMILIES
def test_a_connection_is_there_from_its_opening_to_its_end(
    connections: Connections, family: socket.AddressFamily, address: str
) -> None:
    local = ip_address(address)
    with socket.socket(family) as listener, socket.socket(family) as client:
        listener.bind((address, 0))
        listener.listen()
        client.connect(listener.getsockname())
        port, client_port = listener.getsockname()[1], client.getsockname()[1]
        assert connections.has(local, port, local, client_port)
        assert connections.has(local, client_port, local, port)
        assert not connections.has(local, port, local, client_port ^ 1)
        assert not connections.has(local, port ^ 1, local, client_port)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, so that nothing stays
        server, _ = listener.accept()
        client.close()
        with server:
            with pytest.raises(ConnectionResetError):
                server.recv(1)
            assert not connections.has(local, port, local, client_port)


def test_a_server_with_both_families_has_the_connections_of_either(connections: Connections) -> None:
    local = ip_address("127.0.0.1")
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert connections.has(local, port, local, client.getsockname()[1])


def test_one_who_listens_has_no_connection_yet(connections: Connections) -> None:
    local = ip_address("127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not connections.has(local, listener.getsockname()[1], local, 1)
