"""A backend that connects to its own VIP, and is chosen itself: both families, TCP and UDP, both drivers."""

import socket

import pytest

from lbmux.lab.lab import Lab
from tests.api.asking import ask
from tests.daemons.slow_lab import DIPS, PORT, VIPS, balanced, served
from tests.daemons.test_two_arms import DRIVERS

pytestmark = pytest.mark.root
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
BODY = bytes(range(256)) * 200


def answer(sock: socket.socket, host: int) -> None:
    """For TCP, return the peer and all that it sends; for UDP, the peer and the datagram."""
    while True:
        if sock.type == socket.SOCK_DGRAM:
            data, peer = sock.recvfrom(2000)
            if peer is None:  # closed
                return
            sock.sendto(peer[0].encode() + b" " + data, peer)
            continue
        connection, peer = sock.accept()
        with connection:
            connection.sendall(peer[0].encode() + b" ")
            while data := connection.recv(65536):
                connection.sendall(data)


def asked(lab: Lab, family: int, protocol: str, body: bytes) -> bytes:
    def ask_vip() -> bytes:
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        with socket.socket(kind, KINDS[protocol]) as sock:
            sock.settimeout(5)
            sock.bind((DIPS[family].format(1), 0))
            sock.connect((VIPS[family], PORT[protocol]))
            sock.sendall(body)
            if protocol == "udp":
                return sock.recv(2000)
            sock.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: sock.recv(65536), b""))

    return lab.inside("host1", ask_vip)


@DRIVERS
def test_a_backend_reaches_itself_by_its_vip(lab: Lab, driver: tuple[str, ...]) -> None:
    with balanced(lab, (1,), agent_options=driver):
        for protocol, body in (("tcp", BODY), ("udp", b"question")):
            for family, vip in VIPS.items():
                with served(lab, family, protocol, answer, (1,)):
                    assert asked(lab, family, protocol, body) == vip.encode() + b" " + body, (family, protocol)
        lines = ask(lab.directory / "host1-test.sock", "counters")["verdicts"]
        assert sum(line["packets"] for line in lines if line["verdict"] == "hairpin") > 8
