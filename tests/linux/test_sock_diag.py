"""The host's connections, by real ones on loopback."""

import socket
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from lbmux.linux.sock_diag import Connections

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
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close with a reset
        server, _ = listener.accept()
        client.close()
        with server:
            with pytest.raises(ConnectionResetError):
                server.recv(1)
            assert not connections.has(local, port, local, client_port)


def test_a_connection_that_only_waits_for_its_time_to_pass_is_over(connections: Connections) -> None:
    local = ip_address("127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            client_port = client.getsockname()[1]
            listener.accept()[0].close()  # the first to close
            assert client.recv(1) == b""
            assert connections.has(local, port, local, client_port)
        assert not connections.has(local, port, local, client_port)
    with socket.socket() as again, pytest.raises(OSError, match="in use"):  # in TIME-WAIT
        again.bind(("127.0.0.1", port))


def test_a_server_with_both_families_has_the_connections_of_either(connections: Connections) -> None:
    local = ip_address("127.0.0.1")
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert connections.has(local, port, local, client.getsockname()[1])


def test_a_listening_socket_has_no_connection_yet(connections: Connections) -> None:
    local = ip_address("127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not connections.has(local, listener.getsockname()[1], local, 1)


@pytest.mark.parametrize("both", [False, True], ids=["of one family", "of both"])
def test_a_service_has_some_from_the_opening_of_one_to_its_end(connections: Connections, both: bool) -> None:
    """An address of its own: on loopback there are others' connections, too."""
    local, other = ip_address("127.91.18.1"), ip_address("127.91.18.2")
    family = socket.AF_INET6 if both else socket.AF_INET
    with socket.create_server(("" if both else str(local), 0), family=family, dualstack_ipv6=both) as listener:
        port = listener.getsockname()[1]
        assert not connections.any(local, range(port, port + 1))  # a listener has none yet
        with socket.create_connection((str(local), port), source_address=(str(other), 0)) as client:
            server, _ = listener.accept()
            for ports in (range(port, port + 1), range(port - 1, port + 2), range(1)):
                assert connections.any(local, ports)
            assert not connections.any(local, range(port + 1, port + 2))
            assert not connections.any(ip_address("127.91.18.3"), range(1))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
            with server, pytest.raises(ConnectionResetError):
                server.recv(1)
        assert not connections.any(local, range(port, port + 1))


def test_a_socket_in_time_wait_is_not_a_connection(connections: Connections) -> None:
    local = ip_address("127.91.18.4")
    with socket.create_server((str(local), 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((str(local), port)) as client, listener.accept()[0] as server:
            server.close()  # the side that closes first ends in TIME-WAIT
            assert client.recv(1) == b""
            assert connections.any(local, range(port, port + 1))
        assert not connections.any(local, range(port, port + 1))


def test_some_of_ipv6(connections: Connections) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("::1", port)):
            assert connections.any(ip_address("::1"), range(port, port + 1))
        assert not connections.any(ip_address("127.0.0.1"), range(port, port + 1))


@FAMILIES
def test_a_connection_has_the_round_trip_time_that_the_kernel_measured(
    connections: Connections, family: socket.AddressFamily, address: str
) -> None:
    with socket.socket(family) as listener, socket.socket(family) as client:
        listener.bind((address, 0))
        listener.listen()
        client.connect(listener.getsockname())
        with listener.accept()[0] as server:
            client.send(b"x")
            server.recv(1)
            rows, rtt_ms = connections.round_trips()
            mine = rows["local_port"] == socket.htons(client.getsockname()[1])
            assert mine.sum() == 1 and 0 < rtt_ms[mine][0] < 1000
            info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 72)
            assert rtt_ms[mine][0] == int.from_bytes(info[68:72], sys.byteorder) / 1000


@FAMILIES
def test_connections_that_wait_to_be_accepted_are_counted(
    connections: Connections, family: socket.AddressFamily, address: str
) -> None:
    with socket.socket(family) as listener, socket.socket(family) as client:
        listener.bind((address, 0))
        listener.listen()

        def length() -> list[int]:
            found, lengths = connections.accept_queues()
            return lengths[found["local_port"] == socket.htons(listener.getsockname()[1])].tolist()  # type: ignore[no-any-return]

        assert length() == [0]
        client.connect(listener.getsockname())
        end = time.monotonic() + 10
        while length() != [1]:  # the kernel may be busy with the connection's last packet
            assert time.monotonic() < end
