from ipaddress import ip_address, ip_network

import pytest

from lbmux.steering.gdnsd_files import Server, TooManyAnswersError, files
from lbmux.steering.steering_map import SteeringMap

SERVER = Server([ip_address("192.0.2.53"), ip_address("2001:db8::53")], 53, "/run/x", "/state")
POPS = {"fra": ("192.0.2.1", "2001:db8::1"), "ams": ("192.0.2.2",)}
G1, G2 = ip_network("198.51.100.0/24"), ip_network("2001:db8:7::/56")


def test_a_group_is_a_network_and_a_pop_a_datacenter() -> None:
    steering_map = SteeringMap(
        "www.example.net", 30, POPS, {G1: {"ams": 1.0}, G2: {"fra": 1.0}}, "ams", resolvers={"9.9.9.9": "fra"}
    )
    written = files(steering_map, SERVER, 7)
    assert written["geoip/networks"] == '9.9.9.9/32 => "fra"\n198.51.100.0/24 => "ams"\n2001:db8:7::/56 => "fra"\n'
    assert 'datacenters => [ "ams", "fra" ]' in written["config"]  # the first is for all other clients
    assert '"fra" => { addrs_v4 => [ 192.0.2.1 ], addrs_v6 => [ 2001:db8::1 ] }' in written["config"]
    assert "weighted" not in written["config"]
    assert written["zones/www.example.net"].splitlines() == [
        "@ SOA ns hostmaster ( 7 7200 1800 259200 30 )", "@ NS ns", "ns A 192.0.2.53", "ns AAAA 2001:db8::53",
        "@ 30 DYNA geoip!steer",
    ]  # fmt: skip


def test_weights_are_a_choice_by_family() -> None:
    both = {"fra": 0.6, "ams": 0.4}
    written = files(SteeringMap("www.example.net", 30, POPS, {G1: both, G2: both}, "ams"), SERVER, 1)
    assert written["geoip/networks"] == "198.51.100.0/24 => mix0\n2001:db8:7::/56 => mix0\n"
    assert 'addrs_v4 => { "ams" => [ 192.0.2.2, 40 ], "fra" => [ 192.0.2.1, 60 ] }' in written["config"]
    assert 'addrs_v6 => { "fra" => [ 2001:db8::1, 60 ] }' in written["config"]


def test_more_answers_than_gdnsd_has() -> None:
    groups = {ip_network((n << 8, 24)): {"fra": n / 1000, "ams": 1 - n / 1000} for n in range(1, 255)}
    with pytest.raises(TooManyAnswersError, match="256 different answers"):
        files(SteeringMap("www.example.net", 30, POPS, groups, "ams"), SERVER, 1)
