"""What a mux announces, and how its options are read."""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest

from lbmux.bgp.bgp_settings import Bgp, Peer, Route, parse_community, prefixes_of, routes_of
from lbmux.config.models import Config
from lbmux.errors import SetupError


def test_a_peer_has_the_default_as_or_its_own() -> None:
    assert Peer.parse("10.0.0.1") == Peer(IPv4Address("10.0.0.1"), 64512)
    assert Peer.parse("10.0.0.1:65000").number == 65000


def test_an_ipv6_peer_has_brackets_only_before_an_as() -> None:
    router = IPv6Address("2001:db8::1")
    assert Peer.parse("2001:db8::1") == Peer(router, 64512)
    assert Peer.parse("[2001:db8::1]:65000") == Peer(router, 65000)
    assert Peer.parse("2001:db8::1:6500").address == IPv6Address("2001:db8::1:6500")  # without brackets: an address


BAD_PEERS = (
    "", "router", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:4294967296", "10.0.0.1:x", "[10.0.0.1", "2001:db8::1]:7",
    "[2001:db8::1]:", "[2001:db8::1]:0", "fe80::1",
)  # fmt: skip


def test_a_session_is_from_the_own_address_of_its_family() -> None:
    four, six = Peer(IPv4Address("10.0.0.1")), Peer(IPv6Address("2001:db8::1"))
    both = Bgp(IPv4Address("10.0.0.2"), (four, six), local6=IPv6Address("2001:db8::2"))
    assert (str(both.local_to(four)), str(both.local_to(six))) == ("10.0.0.2", "2001:db8::2")
    with pytest.raises(SetupError, match="no own IPv6 address"):
        Bgp(both.local, both.peers).local_to(six)


def test_a_router_id_is_there_without_ipv4_and_is_each_muxs_own() -> None:
    muxes = [Bgp(None, (), local6=IPv6Address(f"2001:db8:0:{n}::2")).router_id for n in (1, 2)]
    assert len({IPv4Address(text) for text in muxes}) == 2
    assert Bgp(IPv4Address("10.0.0.2"), ()).router_id == "10.0.0.2"


@pytest.mark.parametrize("text", BAD_PEERS)
def test_an_invalid_peer_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        Peer.parse(text)


def test_a_community_is_two_numbers_of_16_bits() -> None:
    assert parse_community("64512:100") == (64512, 100)
    for text in ("1", "65536:1", "1:65536", "a:b", "-1:2"):
        with pytest.raises(ValueError):
            parse_community(text)


def test_a_vip_of_several_services_is_one_prefix() -> None:
    backend = {"dip": "10.1.1.2"}
    services = [
        {"name": name, "vip": vip, "protocol": "tcp", "port": port, "backends": [backend]}
        for name, vip, port in (("a", "192.0.2.1", 80), ("b", "192.0.2.1", 81), ("c", "192.0.2.2", 80))
    ]
    config = Config.model_validate({"muxes": ["10.0.1.2"], "services": services})
    assert prefixes_of(config) == {IPv4Network("192.0.2.1"), IPv4Network("192.0.2.2")}


LIVE, DEAD = [{"dip": "10.0.2.1"}], list[dict[str, str]]()


@pytest.mark.parametrize(("first", "second", "is_last_resort"), [
    ((DEAD, "withdraw"), (DEAD, "withdraw"), True),
    ((DEAD, "withdraw"), (LIVE, "withdraw"), False),
    ((DEAD, "withdraw"), (DEAD, "reject"), False),
    ((DEAD, "reject"), (DEAD, "drop"), False),
])  # fmt: skip
def test_a_vip_is_never_withdrawn_for_health_and_may_become_a_last_resort(
    first: tuple[object, str], second: tuple[object, str], is_last_resort: bool
) -> None:
    services = [
        {
            "name": name,
            "vip": "192.0.2.1",
            "protocol": "tcp",
            "port": port,
            "backends": backends,
            "on_no_backend": action,
        }
        for name, port, (backends, action) in (("a", 80, first), ("b", 81, second))
    ]
    config = Config.model_validate({"services": services})
    assert routes_of(config) == {Route(IPv4Network("192.0.2.1"), is_last_resort)}
