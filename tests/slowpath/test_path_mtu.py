"""ICMP errors about the mux's own outer packets."""

from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.packet import Raw

from lbmux.slowpath.path_mtu import LIFETIME_S, PathMtus, read_outer_error
from tests.slowpath.golden import HOST, HOST6, MUX, MUX6, VIP, ip, read, segment

ROUTER, ROUTER6 = "10.0.9.1", "fd00:9::1"


def outer(length_bytes: int = 1400) -> Any:
    return IP(src=MUX, dst=HOST, flags="DF") / ip(4, flags="DF") / segment(length_bytes)


def error(quoted: Any, mtu: int = 1400, quote_bytes: int = 528, code: int = 4, kind: int = 3) -> Any:
    return ip(4, ROUTER, MUX) / ICMP(type=kind, code=code, nexthopmtu=mtu) / Raw(bytes(quoted)[:quote_bytes])


def test_fragmentation_needed() -> None:
    found = read_outer_error(read(error(outer())))
    assert found is not None and (str(found.host), found.mtu_bytes) == (HOST, 1400)
    assert found.inner is not None and str(found.inner.destination) == VIP and found.inner.ports == (40000, 80)


def test_eight_bytes_of_the_inner_header_tell_the_host_only() -> None:
    found = read_outer_error(read(error(outer(), quote_bytes=28)))
    assert found is not None and (str(found.host), found.mtu_bytes, found.inner) == (HOST, 1400, None)


def test_packet_too_big() -> None:
    whole = IPv6(src=MUX6, dst=HOST6) / ip(6) / segment(1400)
    packet = ip(6, ROUTER6, MUX6) / ICMPv6PacketTooBig(mtu=1300) / Raw(bytes(whole)[:1232])
    found = read_outer_error(read(packet))
    assert found is not None and (str(found.host), found.mtu_bytes) == (HOST6, 1300)
    assert found.inner is not None and found.inner.ports == (40000, 80)


def test_router_that_does_not_say_the_mtu_gets_the_next_plateau() -> None:
    found = read_outer_error(read(error(outer(1440), mtu=0)))
    assert found is not None and found.mtu_bytes == 1492


def test_unreachable_and_time_exceeded_say_nothing_of_the_mtu() -> None:
    for kind, code in ((3, 1), (11, 0)):
        found = read_outer_error(read(error(outer(), kind=kind, code=code, mtu=0)))
        assert found is not None and found.mtu_bytes is None and found.inner is not None


def test_a_forged_tiny_mtu_is_not_believed() -> None:
    found = read_outer_error(read(error(outer(), mtu=68)))
    assert found is not None and found.mtu_bytes == 552


def test_a_packet_that_would_have_fitted() -> None:
    assert read_outer_error(read(error(outer(100), mtu=1400))) is None


def test_somebody_elses_packet() -> None:
    assert read_outer_error(read(error(IP(src="10.0.0.9", dst=HOST) / ip(4) / segment(1400)))) is None


@pytest.mark.parametrize("packet", [ip(4, ROUTER, MUX) / ICMP(), ip(4, ROUTER, MUX) / UDP()], ids=["ping", "udp"])
def test_no_error(packet: Any) -> None:
    assert read_outer_error(read(packet)) is None


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
