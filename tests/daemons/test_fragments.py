"""Large datagrams through a mux and an agent as processes, there and back."""

import errno
import socket

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.packet import Raw

from lbmux.lab.lab import Lab
from lbmux.lab.namespaces import set_route
from lbmux.lab.topology import Route
from tests.daemons.running_daemons import running, send
from tests.daemons.slow_lab import CLIENT, HOSTS, PORT, VIPS, balanced, client_socket, counters, served

pytestmark = pytest.mark.root
FAMILIES = pytest.mark.parametrize("family", [4, 6])
CONTENT = bytes(range(256)) * 35 + bytes(40)
assert len(CONTENT) == 9000


def echo(sock: socket.socket, host: int) -> None:
    """Every datagram goes back with the host's number before it."""
    while True:
        content, client = sock.recvfrom(65536)
        if client is None:  # the end
            return
        sock.sendto(b"%d" % host + content, client)


@pytest.mark.parametrize("options", [(), ("--driver", "xdp", "--detach-on-exit")], ids=["packet", "xdp"])
@FAMILIES
def test_9000_bytes_there_and_back(lab: Lab, family: int, options: tuple[str, ...]) -> None:
    """Inner packets are fragmented, and for IPv4 outer ones too: they fill the client's link.

    IPv6 fragments cannot be fragmented again: the client gets an error for its first datagram, and sends smaller ones.
    """
    with (
        balanced(lab, options=options) as mux,
        served(lab, family, "udp", echo),
        client_socket(lab, family, "udp") as sock,
    ):
        sock.connect((VIPS[family], PORT["udp"]))
        sock.settimeout(5)
        answers = list[bytes]()
        for _ in range(5):
            sock.send(CONTENT)
            try:
                answers.append(sock.recv(65536))
            except OSError as error:
                assert (family, error.errno, answers) == (6, errno.EMSGSIZE, [])
        assert len(answers) >= 4
        assert {answer[1:] for answer in answers} == {CONTENT}
        assert len({answer[:1] for answer in answers}) == 1, "one flow, one backend"
        counts = counters(mux)
        assert counts["fragment_forwarded"] >= 4 * 7
        assert counts["too_big_fragmented" if family == 4 else "too_big_answered"] >= 1


def test_flows_keep_their_backend_whether_in_fragments_or_not(lab: Lab) -> None:
    with balanced(lab), served(lab, 4, "udp", echo):
        hosts = set()
        for _ in range(12):
            with client_socket(lab, 4, "udp") as sock:
                sock.connect((VIPS[4], PORT["udp"]))
                backends = set()
                for content in (b"small", CONTENT, b"small again"):
                    sock.send(content)
                    answer = sock.recv(65536)
                    assert answer[1:] == content
                    backends.add(answer[:1])
                assert len(backends) == 1
                hosts |= backends
        assert hosts == {b"%d" % n for n in HOSTS}


def test_last_fragment_first(lab: Lab) -> None:
    """Arriving the other way round, all wait at the mux for the one that has the ports."""
    with balanced(lab) as mux, served(lab, 4, "udp", echo), client_socket(lab, 4, "udp") as sock:
        sock.connect((VIPS[4], PORT["udp"]))
        port = sock.getsockname()[1]
        whole = IP(src=CLIENT, dst=VIPS[4], id=77) / UDP(sport=port, dport=PORT["udp"]) / Raw(CONTENT)
        send(lab, "client", *(bytes(part) for part in reversed(fragment(whole, 1400))))
        assert sock.recv(65536)[1:] == CONTENT
        assert counters(mux)["fragment_forwarded"] == 7


def test_overlapping_fragments_are_dropped(lab: Lab) -> None:
    with balanced(lab) as mux, served(lab, 4, "udp", echo), client_socket(lab, 4, "udp") as sock:
        sock.connect((VIPS[4], PORT["udp"]))
        port = sock.getsockname()[1]
        whole = IP(src=CLIENT, dst=VIPS[4], id=78) / UDP(sport=port, dport=PORT["udp"]) / Raw(CONTENT)
        first, *others = fragment(whole, 1400)
        place = len(first.payload) // 8 - 1
        over = IP(src=CLIENT, dst=VIPS[4], id=78, flags="MF", frag=place, proto=17) / Raw(bytes(64))
        send(lab, "client", bytes(first), bytes(over), *map(bytes, others))
        sock.send(b"behind it")
        assert sock.recv(65536)[1:] == b"behind it"
        assert counters(mux)["fragment_overlap"] == 1 + len(others)


def test_across_two_muxes(lab: Lab) -> None:
    """Fragments of every datagram arrive at both muxes in turn; one of them sends all of them on."""
    muxes = ("10.0.1.2", "10.0.2.2")

    def send_by(mux: str, packet: bytes) -> None:
        lab.inside("router", lambda: set_route(Route(f"{VIPS[4]}/32", (mux,))))
        send(lab, "client", packet)

    with (
        balanced(lab, muxes=[*muxes, "2001:db8:0:1::2", "2001:db8:0:2::2"]) as mux1,
        running(lab, "mux2", "mux") as mux2,
        served(lab, 4, "udp", echo),
        client_socket(lab, 4, "udp") as sock,
    ):
        sock.connect((VIPS[4], PORT["udp"]))
        port, datagrams, answers = sock.getsockname()[1], 8, list[bytes]()
        try:
            for number in range(datagrams):
                whole = IP(src=CLIENT, dst=VIPS[4], id=number + 1) / UDP(sport=port, dport=PORT["udp"]) / Raw(CONTENT)
                for turn, part in enumerate(fragment(whole, 1480)):
                    send_by(muxes[turn % 2], bytes(part))
                answers.append(sock.recv(65536))
        finally:
            lab.inside("router", lambda: set_route(Route(f"{VIPS[4]}/32", (muxes[0],))))
        assert {answer[1:] for answer in answers} == {CONTENT} and len({answer[:1] for answer in answers}) == 1
        ones, twos = counters(mux1), counters(mux2)
        assert ones["to_mux"] + twos["to_mux"] == ones["from_mux"] + twos["from_mux"] >= 3 * datagrams
        assert ones["to_mux"] and twos["to_mux"]
