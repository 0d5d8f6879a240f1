"""Packets that come back for a probe: answers of servers, and errors of hosts and routers."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from scapy.layers.inet import GRE, ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet

from lbmux.tools.doctor.tunnel_probe import (
    FIRST_PORT,
    Answer,
    Target,
    parse_answer,
    parse_icmp_error,
    parse_server_answer,
)

OWN, OWN6 = "10.0.1.2", "2001:db8:0:1::2"
VIP, VIP6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")
ROUTER, ROUTER6 = IPv4Address("10.0.1.1"), IPv6Address("2001:db8:0:1::1")
HOST1, HOST2, HOST6 = IPv4Address("10.1.1.2"), IPv4Address("10.1.2.2"), IPv6Address("2001:db8:1:1::2")
TARGETS = dict(
    enumerate(
        [
            Target("web", "h1", HOST1, VIP, 80),
            Target("web", "h2", HOST2, VIP, 80),
            Target("web6", "h2", HOST2, VIP6, 80),
            Target("web6", "h1", HOST6, VIP6, 80),
            Target("dns", "h1", HOST1, VIP, 53, "udp", "gue1"),
            Target("dns", "h2", HOST2, VIP, 53, "udp", "direct"),
            Target("web", "h3", HOST1, VIP, 80, "tcp", "gre"),
        ],
        FIRST_PORT,
    )
)
DATAGRAM, DIRECT, BY_GRE = FIRST_PORT + 4, FIRST_PORT + 5, FIRST_PORT + 6


def outer(port: int) -> Packet:
    """What was sent, as scapy has it."""
    target = TARGETS[port]
    inner = IP(src=OWN, dst=str(target.vip)) if target.vip == VIP else IPv6(src=OWN6, dst=str(target.vip))
    inner /= UDP(sport=port, dport=53) / b"lbmux" if target.protocol == "udp" else TCP(sport=port, dport=80)
    if target.kind == "direct":
        return inner
    host = str(target.host)
    shim = {"ipip": inner, "gue1": UDP(sport=50000, dport=6080, chksum=0) / inner, "gre": GRE() / inner}[target.kind]
    return IP(src=OWN, dst=host) / shim if target.host.version == 4 else IPv6(src=OWN6, dst=host) / shim


SENT = {port: bytes(outer(port)) for port in TARGETS}


def error(kind: int, code: int, quoted: bytes, *, quoted_bytes: int = 200, mtu: int = 0) -> bytes:
    return bytes([kind, code, 0, 0]) + mtu.to_bytes(4, "big") + quoted[:quoted_bytes]


def found(sender: IPv4Address | IPv6Address, message: bytes) -> tuple[int, Answer] | None:
    return parse_icmp_error(sender, message, TARGETS, SENT)


@pytest.mark.parametrize(("flags", "kind"), [("SA", "open"), ("RA", "closed")])
def test_an_answer_of_the_vip(flags: str, kind: str) -> None:
    for port, vip in ((FIRST_PORT, VIP), (FIRST_PORT + 3, VIP6)):
        segment = bytes(TCP(sport=80, dport=port, flags=flags))
        assert parse_server_answer(vip, "tcp", segment, TARGETS) == (port, Answer(kind, str(vip)))


def test_a_datagram_is_an_answer_whatever_it_says() -> None:
    datagram = bytes(UDP(sport=53, dport=DATAGRAM) / b"x")
    assert parse_server_answer(VIP, "udp", datagram, TARGETS) == (DATAGRAM, Answer("open", str(VIP)))
    assert parse_server_answer(VIP, "tcp", datagram + bytes(20), TARGETS) is None


def test_segments_from_other_senders_are_not_answers() -> None:
    for source, sport, dport in (("192.0.2.2", 80, FIRST_PORT), ("192.0.2.1", 81, FIRST_PORT), ("192.0.2.1", 80, 5)):
        segment = bytes(TCP(sport=sport, dport=dport, flags="SA"))
        assert parse_server_answer(ip_address(source), "tcp", segment, TARGETS) is None


@pytest.mark.parametrize(
    ("kind", "code", "means", "reason"),
    [
        (3, 2, "refused", "protocol unreachable"),
        (3, 1, "unreachable", "host unreachable"),
        (3, 13, "unreachable", "forbidden"),
    ],
)
@pytest.mark.parametrize("port", [FIRST_PORT + 1, FIRST_PORT + 2, DATAGRAM, BY_GRE])
def test_an_error_is_about_the_probe_that_it_quotes(kind: int, code: int, means: str, reason: str, port: int) -> None:
    assert found(ROUTER, error(kind, code, SENT[port])) == (port, Answer(means, "10.0.1.1", reason=reason))


@pytest.mark.parametrize(("kind", "code", "means"), [(1, 3, "unreachable"), (4, 1, "refused"), (2, 0, "too_big")])
def test_errors_of_ipv6(kind: int, code: int, means: str) -> None:
    port = FIRST_PORT + 3
    answer = found(ROUTER6, error(kind, code, SENT[port], mtu=1400 if kind == 2 else 0))
    assert answer is not None
    assert (answer[0], answer[1].kind, answer[1].mtu) == (port, means, 1400 if kind == 2 else 0)


def test_an_error_that_quotes_8_bytes_is_known_by_its_host() -> None:
    message = error(3, 4, SENT[FIRST_PORT + 1], quoted_bytes=28, mtu=1400)
    assert found(ROUTER, message) == (FIRST_PORT + 1, Answer("too_big", "10.0.1.1", 1400, "too big"))


def test_fields_that_routers_change_are_not_compared() -> None:
    packet = outer(DATAGRAM)
    packet.ttl, packet.tos = 3, 1
    assert found(ROUTER, error(3, 1, bytes(packet).ljust(128, b"\0") + b"extension"))[0] == DATAGRAM  # type: ignore[index]


def test_a_port_of_the_tunnel_that_is_unreachable_is_an_agent_that_is_not_there() -> None:
    assert found(HOST1, error(3, 3, SENT[DATAGRAM])) == (
        DATAGRAM, Answer("refused", str(HOST1), reason="port unreachable"),
    )  # fmt: skip


@pytest.mark.parametrize("delivered_to", [str(VIP), str(HOST1)])
def test_a_port_behind_the_tunnel_that_is_unreachable_is_closed(delivered_to: str) -> None:
    """The agent may have made the DIP of the VIP."""
    datagram = bytes(IP(src=OWN, dst=delivered_to) / UDP(sport=DATAGRAM, dport=5353) / b"lbmux")
    assert found(HOST1, error(3, 3, datagram)) == (DATAGRAM, Answer("closed", str(HOST1), reason="port unreachable"))


def test_too_big_about_the_inner_packet_is_the_muxs_own_error() -> None:
    """The mux tells the probe, as it tells clients, what a router said about the tunnel: the router counts."""
    inner = outer(FIRST_PORT + 2).payload
    assert found(VIP6, error(2, 0, bytes(inner), mtu=1380)) is None


def test_without_an_outer_header_a_port_that_is_unreachable_is_closed() -> None:
    answer = found(HOST2, error(3, 3, SENT[DIRECT]))
    assert answer is not None and (answer[0], answer[1].kind) == (DIRECT, "closed")


def test_errors_about_other_packets_are_not_answers() -> None:
    echo = bytes([8, 0]) + bytes(30)
    stranger = bytes([3, 1]) + bytes(6) + bytes(IP(dst="10.9.9.9", proto=4)) + bytes(8)
    other_port = error(3, 3, bytes(IP(src=OWN, dst=str(VIP)) / UDP(sport=999, dport=53)))
    cut = error(3, 1, SENT[FIRST_PORT], quoted_bytes=10)
    assert [found(ROUTER, message) for message in (echo, stranger, other_port, cut)] == [None] * 4


def answer(port: int, **tcp: object) -> bytes:
    target = TARGETS[port]
    header = IP(src=str(target.vip), dst=OWN) if target.vip.version == 4 else IPv6(src=str(target.vip), dst=OWN6)
    return bytes(header / TCP(sport=80, dport=port, flags="SA", **tcp))


@pytest.mark.parametrize("port", [FIRST_PORT, FIRST_PORT + 3])
def test_a_packet_from_the_link_is_read_without_its_padding(port: int) -> None:
    assert parse_answer(answer(port) + bytes(20), TARGETS, SENT) == (port, Answer("open", str(TARGETS[port].vip)))


def test_an_error_from_the_link_is_read() -> None:
    packet = bytes(IP(src=str(ROUTER), dst=OWN) / error(3, 1, SENT[FIRST_PORT]))
    packet = packet[:9] + b"\x01" + packet[10:]
    assert parse_answer(packet, TARGETS, SENT) == (
        FIRST_PORT,
        Answer("unreachable", "10.0.1.1", reason="host unreachable"),
    )


def test_packets_of_any_length_can_be_checked() -> None:
    packets = [answer(FIRST_PORT), answer(FIRST_PORT + 3), bytes(IP(src=OWN, dst=OWN) / ICMP(type=3))]
    for packet in packets:
        for length in range(len(packet)):
            parse_answer(packet[:length], TARGETS, SENT)
    assert parse_answer(b"", TARGETS, SENT) is None and parse_answer(bytes(60), TARGETS, SENT) is None
