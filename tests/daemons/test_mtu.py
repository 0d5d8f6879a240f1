"""Path MTU discovery by real connections: narrow links behind the server and behind the mux, and the tunnel itself."""

import contextlib
import hashlib
import socket
import time
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute

from lbmux.lab.lab import Lab
from tests.daemons.slow_lab import PORT, VIPS, balanced, client_socket, configuration, counters, served

pytestmark = pytest.mark.root
FAMILIES = pytest.mark.parametrize("family", [4, 6])
CONTENT = bytes(range(256)) * 4096
IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU = 10, 2, 14  # linux/in.h
IPV6_MTU_DISCOVER, IPV6_MTU = 23, 24  # linux/in6.h


@contextlib.contextmanager
def narrow(lab: Lab, node: str, interface: str, mtu: int) -> Iterator[None]:
    """Lower the MTU of one end of a link, so that a router there sends an ICMP error."""

    def set_mtu(value: int) -> None:
        with IPRoute() as ip:
            ip.link("set", index=ip.link_lookup(ifname=interface)[0], mtu=value)

    lab.inside(node, lambda: set_mtu(mtu))
    try:
        yield
    finally:
        lab.inside(node, lambda: set_mtu(1500))


def send_content(sock: socket.socket, host: int) -> None:
    while True:
        connection, _ = sock.accept()
        with connection:
            connection.sendall(CONTENT)


def take_content(sock: socket.socket, host: int) -> None:
    """Answer with the digest of all received bytes."""
    while True:
        connection, _ = sock.accept()
        with connection:
            digest = hashlib.sha256()
            while piece := connection.recv(65536):
                digest.update(piece)
            connection.sendall(digest.digest())


IN_KERNEL = ("--driver", "xdp", "--detach-on-exit")


@pytest.mark.parametrize("options", [(), IN_KERNEL], ids=["packet", "xdp"])
@FAMILIES
def test_download_over_a_narrow_link_of_the_client(lab: Lab, family: int, options: tuple[str, ...]) -> None:
    """The router's error about the server's packets finds the server, behind mux and NAT."""
    with (
        narrow(lab, "router", "to-client", 1400),
        balanced(lab, options=options, agent_options=options) as mux,
        served(lab, family, "tcp", send_content),
    ):
        for _ in range(4):
            with client_socket(lab, family, "tcp") as sock:
                sock.connect((VIPS[family], PORT["tcp"]))
                content = b"".join(iter(lambda: sock.recv(65536), b""))
            assert content == CONTENT
        assert counters(mux)["icmp_forwarded"] >= 1


def send_datagram(sock: socket.socket, host: int) -> None:
    while True:
        _, peer = sock.recvfrom(100)
        if peer is None:  # closed
            return
        sock.sendto(CONTENT[:4000], peer)


@pytest.mark.parametrize("options", [("--driver", "tun"), IN_KERNEL], ids=["tun", "xdp"])
@FAMILIES
def test_an_answer_in_fragments_over_a_narrow_link_of_the_client(
    lab: Lab, family: int, options: tuple[str, ...]
) -> None:
    """Its host learns the path MTU by the first answer; the agent cuts later ones no longer than the host does."""
    with (
        narrow(lab, "router", "to-client", 1400),
        balanced(lab, (1,), agent_options=options),
        served(lab, family, "udp", send_datagram, (1,)),
        client_socket(lab, family, "udp") as sock,
    ):
        sock.connect((VIPS[family], PORT["udp"]))
        sock.settimeout(1)
        answer, tries = b"", 0
        while not answer and tries < 10:
            tries += 1
            sock.send(b"question")
            with contextlib.suppress(TimeoutError):
                answer = sock.recv(65536)
        assert answer == CONTENT[:4000]


@FAMILIES
def test_upload_through_the_tunnel_without_a_smaller_mss(lab: Lab, family: int) -> None:
    """The client assumes the server's MTU to be 1500; the mux sends it the smaller path MTU."""
    with balanced(lab) as mux, served(lab, family, "tcp", take_content), client_socket(lab, family, "udp") as sock:
        if family == 4:
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_DO)
        sock.connect((VIPS[family], PORT["udp"]))
        sock.send(bytes(1500 - (28 if family == 4 else 48)))
        level, option = (socket.IPPROTO_IP, IP_MTU) if family == 4 else (socket.IPPROTO_IPV6, IPV6_MTU)
        deadline = time.monotonic() + 5
        while sock.getsockopt(level, option) == 1500 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert sock.getsockopt(level, option) == (1480 if family == 4 else 1460)
        assert counters(mux)["too_big_answered"] >= 1
        with client_socket(lab, family, "tcp") as upload:
            upload.connect((VIPS[family], PORT["tcp"]))
            upload.sendall(CONTENT)
            upload.shutdown(socket.SHUT_WR)
            assert upload.recv(32) == hashlib.sha256(CONTENT).digest()


def test_a_narrow_link_between_router_and_host(lab: Lab) -> None:
    """The error is about the outer packet: the mux learns the MTU and sends the client one; the upload continues."""
    with (
        balanced(lab, hosts=(1,)) as mux,
        served(lab, 4, "tcp", take_content, hosts=(1,)),
        narrow(lab, "router", "to-host1", 1300),
        client_socket(lab, 4, "tcp") as upload,
    ):
        upload.connect((VIPS[4], PORT["tcp"]))
        upload.sendall(CONTENT)
        upload.shutdown(socket.SHUT_WR)
        assert upload.recv(32) == hashlib.sha256(CONTENT).digest()
        counts = counters(mux)
        assert counts["path_mtu_learned"] >= 1 and counts["path_mtus"] == 1
        assert counts["outer_error_relayed"] >= 1


@pytest.mark.parametrize("agent_driver", ["tun", "xdp"])
@pytest.mark.parametrize("kind", ["ipip", "gue1", "gre", "geneve"])
def test_a_path_too_narrow_for_ipv6_in_a_tunnel(lab: Lab, kind: str, agent_driver: str) -> None:
    """No sender goes below 1280 bytes, so the outer packet is cut (RFC 2473, section 7.1), and put together again."""
    options = ("--driver", agent_driver, *(["--detach-on-exit"] if agent_driver == "xdp" else []))
    services = configuration(hosts=(1,))["services"]
    for service in services:
        service["backends"][0]["host"] = "10.1.1.2"
    with (
        narrow(lab, "router", "to-host1", 1290),
        balanced(lab, (1,), agent_options=options, services=services, tunnel={"kind": kind}) as mux,
        served(lab, 6, "tcp", take_content, hosts=(1,)),
        client_socket(lab, 6, "tcp") as upload,
    ):
        upload.connect((VIPS[6], PORT["tcp"]))
        upload.sendall(CONTENT)
        upload.shutdown(socket.SHUT_WR)
        assert upload.recv(32) == hashlib.sha256(CONTENT).digest()
        assert counters(mux)["too_big_fragmented"] >= 100
