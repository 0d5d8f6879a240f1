"""What ExaBGP is told."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from lbmux.control.announcer.exabgp import CHUNK, commands, configuration
from lbmux.control.announcer.settings import Bgp, Peer

BGP = Bgp(IPv4Address("10.0.1.2"), (Peer(IPv4Address("10.0.1.1")),), 65001, 9, "secret", ((64512, 7), (1, 2)), 50)


def test_a_session_has_its_settings() -> None:
    text = configuration(BGP, Path("/run/x"))
    for part in ("neighbor 10.0.1.1 {", "peer-as 64512;", "local-as 65001;", "hold-time 9;", 'md5-password "secret";'):
        assert part in text


def test_routes_carry_metric_and_communities() -> None:
    assert commands("announce", [IPv4Network("192.0.2.1")], BGP) == [
        "announce attributes next-hop 10.0.1.2 med 50 community [ 64512:7 1:2 ] nlri 192.0.2.1/32"
    ]


def test_ipv6_prefixes_have_a_next_hop_of_their_own() -> None:
    both = [IPv4Network("192.0.2.1"), IPv6Network("2001:db8::1")]
    given = Bgp(BGP.local, BGP.peers, local6=IPv6Address("2001:db8:9::1"))
    assert commands("announce", both, given) == [
        "announce attributes next-hop 10.0.1.2 nlri 192.0.2.1/32",
        "announce attributes next-hop 2001:db8:9::1 nlri 2001:db8::1/128",
    ]
    assert len(commands("announce", both, BGP)) == 1, "without an own address of that family"
    assert "ipv6 unicast;" in configuration(given, Path("/run/x"))


def test_an_ipv6_peer_without_an_own_ipv4_address_is_told_of_ipv6_alone() -> None:
    given = Bgp(None, (Peer(IPv6Address("2001:db8::1")),), local6=IPv6Address("2001:db8::2"))
    text = configuration(given, Path("/run/x"))
    for part in ("neighbor 2001:db8::1 {", "local-address 2001:db8::2;", "family { ipv6 unicast; }"):
        assert part in text


def test_many_prefixes_go_in_few_lines_and_none_is_lost() -> None:
    prefixes = {IPv4Network((0x0A000000 + n, 32)) for n in range(3 * CHUNK + 1)}
    lines = commands("withdraw", prefixes, BGP)
    assert len(lines) == 4
    assert {IPv4Network(name) for line in lines for name in line.partition("nlri ")[2].split()} == prefixes


def test_nothing_to_say_is_no_line() -> None:
    assert commands("announce", [], BGP) == []
