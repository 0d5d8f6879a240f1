"""Ping, dissected by scapy."""

import pytest
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest
from scapy.packet import Raw

from lbmux.slowpath.echo import echo_reply, is_echo_request
from tests.slowpath.golden import CLIENT, CLIENT6, VIP, VIP6, dissect, ip, read, segment


def test_ping() -> None:
    request = read(ip(4, tos=0x28) / ICMP(id=77, seq=3) / Raw(b"timestamp and pattern"))
    assert is_echo_request(request)
    reply = dissect(echo_reply(request))
    assert (reply.src, reply.dst, reply.ttl, reply.tos) == (VIP, CLIENT, 64, 0x28)
    assert (reply[ICMP].type, reply[ICMP].id, reply[ICMP].seq) == (0, 77, 3)
    assert bytes(reply[Raw]) == b"timestamp and pattern"


def test_ping_of_ipv6() -> None:
    request = read(ip(6) / ICMPv6EchoRequest(id=77, seq=3, data=b"pattern"))
    assert is_echo_request(request)
    reply = dissect(echo_reply(request))
    assert (reply.src, reply.dst) == (VIP6, CLIENT6)
    echo = reply[ICMPv6EchoReply]
    assert (echo.id, echo.seq, echo.data) == (77, 3, b"pattern")


@pytest.mark.parametrize(
    "packet",
    [
        ip(4) / ICMP(type=0),
        ip(4) / ICMP(type=13),
        ip(6) / ICMPv6EchoReply(),
        ip(4) / segment(),
        ip(4, flags="MF") / ICMP(),
    ],
    ids=["reply", "timestamp", "reply of IPv6", "tcp", "fragment"],
)
def test_no_request(packet: object) -> None:
    assert not is_echo_request(read(packet))


def test_a_damaged_request_is_not_answered() -> None:
    assert not is_echo_request(read(ip(4) / ICMP(chksum=0x1234)))
    assert not is_echo_request(read(ip(6) / ICMPv6EchoRequest(cksum=0x1234)))
