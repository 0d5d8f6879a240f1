"""What comes back for a probe, told apart: answers of servers, and errors of hosts and routers."""

import struct
from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import ICMP, IP, TCP

from lbmux.tools.doctor.probe import FIRST_PORT, Answer, Target, _of_icmp, _of_tcp

TARGET = Target("web/h1", IPv4Address("10.1.1.2"), IPv4Address("192.0.2.1"), 80)
OTHER = Target("web/h2", IPv4Address("10.1.2.2"), IPv4Address("192.0.2.1"), 80)
TARGETS = {FIRST_PORT: TARGET, FIRST_PORT + 1: OTHER}


def error(code: int, *, quoted_bytes: int = 200, mtu: int = 0) -> bytes:
    inner = IP(src="10.0.1.2", dst="192.0.2.1") / TCP(sport=FIRST_PORT + 1, dport=80)
    quoted = bytes(IP(src="10.0.1.2", dst="10.1.2.2", proto=4) / inner)[:quoted_bytes]
    return bytes(IP(src="10.0.1.1", dst="10.0.1.2") / ICMP(type=3, code=code, nexthopmtu=mtu) / quoted)


@pytest.mark.parametrize(("flags", "kind"), [("SA", "open"), ("RA", "closed")])
def test_an_answer_of_the_vip(flags: str, kind: str) -> None:
    packet = bytes(IP(src="192.0.2.1", dst="10.0.1.2") / TCP(sport=80, dport=FIRST_PORT, flags=flags))
    assert _of_tcp(packet, TARGETS) == (FIRST_PORT, Answer(kind, "192.0.2.1"))


def test_segments_of_others_are_none() -> None:
    for source, sport, dport in (("192.0.2.2", 80, FIRST_PORT), ("192.0.2.1", 81, FIRST_PORT), ("192.0.2.1", 80, 5)):
        packet = bytes(IP(src=source, dst="10.0.1.2") / TCP(sport=sport, dport=dport, flags="SA"))
        assert _of_tcp(packet, TARGETS) is None


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [(2, "protocol", "protocol unreachable"), (1, "unreachable", "host unreachable"), (13, "unreachable", "forbidden")],
)
def test_an_error_is_about_the_probe_that_it_quotes(code: int, kind: str, reason: str) -> None:
    assert _of_icmp(error(code), TARGETS) == (FIRST_PORT + 1, Answer(kind, "10.0.1.1", reason=reason))


def test_an_error_that_quotes_8_bytes_is_known_by_its_host() -> None:
    found = _of_icmp(error(4, quoted_bytes=28, mtu=1400), TARGETS)
    assert found == (FIRST_PORT + 1, Answer("too_big", "10.0.1.1", 1400))


def test_errors_about_other_packets_are_none() -> None:
    ping = bytes(IP(src="10.0.1.1") / ICMP(type=8))
    stranger = bytes(IP(src="10.0.1.1") / ICMP(type=3, code=1) / IP(dst="10.9.9.9", proto=4) / bytes(8))
    assert struct.unpack_from("!B", ping, 20)[0] == 8
    assert [_of_icmp(packet, TARGETS) for packet in (ping, stranger)] == [None, None]
