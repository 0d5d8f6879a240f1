"""What a mux announces, and how its options are read."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from lbmux.control.announcer.settings import Peer, parse_community, prefixes_of
from lbmux.control.config import Config


def test_a_peer_has_the_default_as_or_its_own() -> None:
    assert Peer.parse("10.0.0.1") == Peer(IPv4Address("10.0.0.1"), 64512)
    assert Peer.parse("10.0.0.1:65000").number == 65000


@pytest.mark.parametrize("text", ["", "router", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:4294967296", "10.0.0.1:x"])
def test_what_is_no_peer_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=repr(text)):
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


def test_a_vip_without_backends_is_withdrawn_where_that_is_wanted() -> None:
    backends = {"a": [], "b": [{"dip": "10.0.2.1"}], "c": []}
    services = [
        {"name": name, "vip": vip, "protocol": "tcp", "port": port, "backends": backends[name]}
        for name, vip, port in (("a", "192.0.2.1", 80), ("b", "192.0.2.1", 81), ("c", "192.0.2.2", 80))
    ]
    config = Config.model_validate({"services": services})
    assert prefixes_of(config) == {IPv4Network("192.0.2.1"), IPv4Network("192.0.2.2")}
    assert prefixes_of(config, only_served=True) == {IPv4Network("192.0.2.1")}
