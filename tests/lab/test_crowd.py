"""The clients of a flash crowd, on this machine's loopback."""

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_network

import pytest

from lbmux.lab.scoreboard import crowd as crowds
from lbmux.lab.scoreboard.crowd import crowd

HERE = "127.0.0.1"


@pytest.fixture
def visitors(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, Counter[str]]]:
    """A server's port, and the clients that it has answered, by address."""
    monkeypatch.setattr(crowds, "ADDRESSES", ip_network("127.0.1.0/29"))
    found = Counter[str]()

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connection, (address, _) = listener.accept()
            except OSError:
                return
            with connection:
                if connection.recv(100):
                    connection.sendall(b"here\n")
                    found[address] += 1

    with closing(socket.create_server((HERE, 0), backlog=50)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1], found
        listener.shutdown(socket.SHUT_RDWR)


def test_each_client_has_the_next_address_and_is_answered(visitors: tuple[int, Counter[str]]) -> None:
    port, found = visitors
    assert crowd(HERE, port, per_s=60, seconds=0.3) == 18
    assert found == {f"127.0.1.{number}": 3 for number in range(1, 7)}


def test_clients_without_an_answer_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowds, "PATIENCE_S", 0.1)
    monkeypatch.setattr(crowds, "ADDRESSES", ip_network("127.0.1.0/29"))
    with closing(socket.create_server((HERE, 0))) as silent:
        assert crowd(HERE, silent.getsockname()[1], per_s=20, seconds=0.1) == 0
