"""ICMP errors about the mux's own outer packets."""

from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.packet import Raw

from lbmux.slowpath.path_mtu import LIFETIME_S, OuterError, PathMtus, read_outer_error
from tests.slowpath.golden import HOST, HOST6, MUX, MUX6, ip, read, segment

ROUTER, ROUTER6 = "10.0.9.1", "fd00:9::1"
HOSTS = {ip_address(HOST), ip_address(HOST6)}


def outer(length_bytes: int = 1400) -> Any:
    return IP(src=MUX, dst=HOST, flags="DF") / ip(4, flags="DF") / segment(length_bytes)


def error(quoted: Any, mtu: int = 1400, quote_bytes: int = 528, code: int = 4, kind: int = 3) -> Any:
    return ip(4, ROUTER, MUX) / ICMP(type=kind, code=code, nexthopmtu=mtu) / Raw(bytes(quoted)[:quote_bytes])


def said(packet: Any) -> OuterError | None:
    return read_outer_error(read(packet), HOSTS)


def test_fragmentation_needed() -> None:
    outer_error = said(error(outer()))
    assert outer_error is not None and (str(outer_error.host), outer_error.mtu_bytes) == (HOST, 1400)
    assert outer_error.quote.payload == bytes(outer())[20:528]


def test_packet_too_big() -> None:
    whole = IPv6(src=MUX6, dst=HOST6) / ip(6) / segment(1400)
    outer_error = said(ip(6, ROUTER6, MUX6) / ICMPv6PacketTooBig(mtu=1300) / Raw(bytes(whole)[:1232]))
    assert outer_error is not None and (str(outer_error.host), outer_error.mtu_bytes) == (HOST6, 1300)


def test_router_that_does_not_say_the_mtu_gets_the_next_plateau() -> None:
    outer_error = said(error(outer(1440), mtu=0))
    assert outer_error is not None and outer_error.mtu_bytes == 1492


def test_unreachable_and_time_exceeded_do_not_change_the_mtu() -> None:
    for kind, code in ((3, 1), (11, 0)):
        outer_error = said(error(outer(), kind=kind, code=code, mtu=0))
        assert outer_error is not None and outer_error.mtu_bytes is None


def test_a_path_mtu_below_the_floor_is_not_accepted() -> None:
    outer_error = said(error(outer(), mtu=68))
    assert outer_error is not None and (outer_error.least(1280), outer_error.least(0)) == (1280, 552)
    quote = IPv6(src=MUX6, dst=HOST6) / ip(6) / segment(1400)
    outer_error = said(ip(6, ROUTER6, MUX6) / ICMPv6PacketTooBig(mtu=68) / quote)
    assert outer_error is not None and (outer_error.least(1300), outer_error.least(0)) == (1300, 1280)


def test_a_packet_that_would_have_fitted() -> None:
    outer_error = said(error(outer(100), mtu=1400))
    assert outer_error is not None and outer_error.least(1280) is None
    outer_error = said(error(outer(1100), mtu=600))
    assert outer_error is not None and outer_error.least(1280) is None and outer_error.least(0) == 600


def test_an_error_about_a_packet_of_another_source() -> None:
    assert said(error(IP(src="10.0.0.9", dst=HOST) / ip(4) / segment(1400))) is None
    assert said(error(IP(src=MUX, dst="10.1.0.77") / ip(4) / segment(1400))) is None


def test_a_damaged_error() -> None:
    packet = error(outer())
    packet[ICMP].chksum = 1
    assert said(packet) is None


@pytest.mark.parametrize("packet", [ip(4, ROUTER, MUX) / ICMP(), ip(4, ROUTER, MUX) / UDP()], ids=["ping", "udp"])
def test_no_error(packet: Any) -> None:
    assert said(packet) is None


def test_learned_for_ten_minutes() -> None:
    mtus, host = PathMtus(), ip_address(HOST)
    mtus.learn(host, 1400, 0.0)
    assert mtus.of(host, 1500, 1.0) == 1400
    assert mtus.of(host, 1300, 1.0) == 1300
    assert mtus.known(1.0) == {host: 1400}
    assert mtus.of(host, 1500, LIFETIME_S + 1) == 1500
    assert mtus.known(LIFETIME_S + 1) == {}


def test_the_smaller_one_counts() -> None:
    mtus, host = PathMtus(), ip_address(HOST)
    mtus.learn(host, 1300, 0.0)
    mtus.learn(host, 1400, 10.0)
    assert mtus.of(host, 1500, 20.0) == 1300
    mtus.learn(host, 1400, LIFETIME_S + 20)
    assert mtus.of(host, 1500, LIFETIME_S + 30) == 1400


def test_a_change_is_reported_once() -> None:
    mtus, host = PathMtus(), ip_address(HOST)
    mtus.learn(host, 1400, 0.0)
    assert mtus.changed == {host}
    mtus.changed.clear()
    mtus.learn(host, 1400, 1.0)
    mtus.learn(host, 1450, 1.0)
    assert not mtus.changed
    mtus.learn(host, 1300, 2.0)
    assert mtus.changed == {host}


def test_hosts_that_are_not_in_the_file_any_more_are_forgotten() -> None:
    mtus = PathMtus()
    for host in (HOST, HOST6):
        mtus.learn(ip_address(host), 1400, 0.0)
    mtus.keep({ip_address(HOST6)})
    assert mtus.known(1.0) == {ip_address(HOST6): 1400}
