"""What comes back for a probe, told apart: answers of servers, and errors of hosts and routers."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from lbmux.tools.doctor.probe import FIRST_PORT, Answer, Target, of_icmp, of_tcp

VIP, VIP6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")
ROUTER, ROUTER6 = IPv4Address("10.0.1.1"), IPv6Address("2001:db8:0:1::1")
TARGETS = {
    FIRST_PORT: Target("web/h1", IPv4Address("10.1.1.2"), VIP, 80),
    FIRST_PORT + 1: Target("web/h2", IPv4Address("10.1.2.2"), VIP, 80),
    FIRST_PORT + 2: Target("web6/h2", IPv4Address("10.1.2.2"), VIP6, 80),
    FIRST_PORT + 3: Target("web6/h1", IPv6Address("2001:db8:1:1::2"), VIP6, 80),
}


def error(kind: int, code: int, port: int, *, quoted_bytes: int = 200, mtu: int = 0) -> bytes:
    target = TARGETS[port]
    inner = IP(dst=str(VIP)) if target.vip == VIP else IPv6(dst=str(VIP6))
    protocol = 4 if target.vip == VIP else 41
    host = str(target.host)
    outer = IP(dst=host, proto=protocol) if target.host.version == 4 else IPv6(dst=host, nh=protocol)
    quoted = bytes(outer / inner / TCP(sport=port, dport=80))[:quoted_bytes]
    return bytes([kind, code, 0, 0]) + mtu.to_bytes(4, "big") + quoted


@pytest.mark.parametrize(("flags", "kind"), [("SA", "open"), ("RA", "closed")])
def test_an_answer_of_the_vip(flags: str, kind: str) -> None:
    for port, vip in ((FIRST_PORT, VIP), (FIRST_PORT + 3, VIP6)):
        segment = bytes(TCP(sport=80, dport=port, flags=flags))
        assert of_tcp(vip, segment, TARGETS) == (port, Answer(kind, str(vip)))


def test_segments_of_others_are_none() -> None:
    for source, sport, dport in (("192.0.2.2", 80, FIRST_PORT), ("192.0.2.1", 81, FIRST_PORT), ("192.0.2.1", 80, 5)):
        segment = bytes(TCP(sport=sport, dport=dport, flags="SA"))
        assert of_tcp(ip_address(source), segment, TARGETS) is None


@pytest.mark.parametrize(
    ("kind", "code", "means", "reason"),
    [
        (3, 2, "protocol", "protocol unreachable"),
        (3, 1, "unreachable", "host unreachable"),
        (3, 13, "unreachable", "forbidden"),
    ],
)
def test_an_error_is_about_the_probe_that_it_quotes(kind: int, code: int, means: str, reason: str) -> None:
    for port in (FIRST_PORT + 1, FIRST_PORT + 2):
        assert of_icmp(ROUTER, error(kind, code, port), TARGETS) == (port, Answer(means, "10.0.1.1", reason=reason))


@pytest.mark.parametrize(("kind", "code", "means"), [(1, 3, "unreachable"), (4, 1, "protocol"), (2, 0, "too_big")])
def test_errors_of_ipv6(kind: int, code: int, means: str) -> None:
    found = of_icmp(ROUTER6, error(kind, code, FIRST_PORT + 3, mtu=1400 if kind == 2 else 0), TARGETS)
    assert found is not None
    assert (found[0], found[1].kind, found[1].mtu) == (FIRST_PORT + 3, means, 1400 if kind == 2 else 0)


def test_an_error_that_quotes_8_bytes_is_known_by_its_host() -> None:
    found = of_icmp(ROUTER, error(3, 4, FIRST_PORT + 1, quoted_bytes=28, mtu=1400), TARGETS)
    assert found == (FIRST_PORT + 1, Answer("too_big", "10.0.1.1", 1400, "too big"))


def test_errors_about_other_packets_are_none() -> None:
    echo = bytes([8, 0]) + bytes(30)
    stranger = bytes([3, 1]) + bytes(6) + bytes(IP(dst="10.9.9.9", proto=4)) + bytes(8)
    cut = error(3, 1, FIRST_PORT, quoted_bytes=10)
    assert [of_icmp(ROUTER, message, TARGETS) for message in (echo, stranger, cut)] == [None, None, None]
