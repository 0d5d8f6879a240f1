"""A stale entry of a connection that the host no longer has: the host's reset does not reach the client."""

import select
import socket
from collections.abc import Iterator

import pytest

from lbmux.lab.lab import Lab
from tests.api.asking import ask
from tests.daemons.slow_lab import DIPS, HOSTS, PORT, SERVER, VIPS, balanced, client_socket, counters

pytestmark = pytest.mark.root
GATEWAY = "198.51.100.1"
TCP_REPAIR = 19
"""linux/tcp.h: a socket closed in this mode sends nothing, as if it had never existed."""


@pytest.fixture
def listeners(lab: Lab) -> Iterator[list[socket.socket]]:
    def listen(host: int) -> socket.socket:
        return socket.create_server((DIPS[4].format(host), SERVER["tcp"]))

    sockets = [lab.inside(f"host{n}", lambda n=n: listen(n)) for n in HOSTS]
    yield sockets
    for sock in sockets:
        sock.close()


@pytest.fixture
def patient_client(lab: Lab) -> Iterator[None]:
    """The client repeats a segment after a second: all hosts have been asked about the one before by then."""
    way = ["ip", "route", "add", f"{VIPS[4]}/32", "via", GATEWAY, "rto_min", "1s"]
    lab.run("client", way, check=True, timeout=10)
    yield
    lab.run("client", ["ip", "route", "del", f"{VIPS[4]}/32"], check=True, timeout=10)


def accepted(listeners: list[socket.socket]) -> socket.socket:
    """The connection, at whichever host it came to."""
    ready, _, _ = select.select(listeners, [], [], 5)
    return next(sock.accept()[0] for sock in ready)


def held(lab: Lab) -> int:
    lines = [line for n in HOSTS for line in ask(lab.directory / f"host{n}-test.sock", "counters")["verdicts"]]
    return sum(line["packets"] for line in lines if line["verdict"] == "reset_suppressed")


@pytest.mark.parametrize("agents", [("--driver", "tun"), ("--driver", "xdp", "--detach-on-exit")], ids=["tun", "xdp"])
def test_all_hosts_are_asked_before_a_client_gets_a_reset(
    lab: Lab, listeners: list[socket.socket], patient_client: None, agents: tuple[str, ...]
) -> None:
    with balanced(lab, agent_options=agents) as mux, client_socket(lab, 4, "tcp") as client:
        client.connect((VIPS[4], PORT["tcp"]))
        client.sendall(b"x")
        with accepted(listeners) as server:
            assert server.recv(1) == b"x"
            server.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        client.sendall(b"y")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert held(lab) == 1
        assert (counters(mux)["returned_forwarded"], counters(mux)["returned_reset"]) == (1, 1)
