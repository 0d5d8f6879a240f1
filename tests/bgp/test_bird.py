"""BIRD's configuration, and its answers."""

import asyncio
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from lbmux.bgp.bgp_settings import Bgp, Neighbour, Peer, Route
from lbmux.bgp.bird import HANGS, Bird, configuration, parse_neighbours, static_routes

BGP = Bgp(
    IPv4Address("10.0.1.2"), (Peer(IPv4Address("10.0.1.1")), Peer(IPv4Address("10.0.9.1"), 7)), 65001, 9, "secret",
    ((64512, 7),), 50, True,
)  # fmt: skip
PROTOCOLS = """\
1002-device1    Device     ---        up     1700000000
1002-peer1      BGP        ---        up     1700000000  Established
1006-  BGP state:          Established
         Routes:         0 imported, 12 exported, 0 preferred
1002-peer2      BGP        ---        start  1700000000  Connect
1006-  BGP state:          Connect
         Last error:       Received: Bad peer AS
"""
SESSIONS = """\
1020-bfd1:
 IP address                Interface  State      Since         Interval  Timeout
 10.0.1.1                  eth0       Up         13:54:56.750    0.050    0.150
"""


def test_a_session_has_its_settings() -> None:
    text = configuration(BGP, Path("/run/x"))
    for part in (
        "local 10.0.1.2 as 65001; neighbor 10.0.1.1 as 64512;", "hold time 9;", 'password "secret";', "bfd on;",
        "bgp_community.add((64512,7)); bgp_med = 50;", "interval 50 ms; multiplier 3;",
        '\ninclude "/run/x/vips4.conf";\n',
    ):  # fmt: skip
        assert part in text


def test_no_bfd_section_without_bfd() -> None:
    assert "bfd" not in configuration(Bgp(BGP.local, BGP.peers), Path("/run/x"))


def test_each_prefix_is_a_route() -> None:
    prefixes = IPv4Network("192.0.2.2"), IPv4Network("192.0.2.1"), IPv6Network("2001:db8::1")
    routes = frozenset(map(Route, prefixes))
    assert static_routes(routes, 4, 65001) == "route 192.0.2.1/32 blackhole;\nroute 192.0.2.2/32 blackhole;\n"
    assert static_routes(routes, 6, 65001) == "route 2001:db8::1/128 blackhole;\n"


def test_a_last_resort_has_a_longer_path() -> None:
    text = static_routes(frozenset({Route(IPv4Network("192.0.2.2"), True)}), 4, 65009)
    assert text.count("bgp_path.prepend(65009);") == 3 and text.endswith(" };\n")


def test_a_path_may_be_longer_by_command() -> None:
    routes = frozenset({Route(IPv4Network("192.0.2.1"), prepended=2), Route(IPv4Network("192.0.2.2"), True, 1)})
    counts = [line.count("bgp_path.prepend(65009);") for line in static_routes(routes, 4, 65009).splitlines()]
    assert counts == [2, 4]


def test_a_black_hole_has_the_community_of_rfc_7999() -> None:
    routes = frozenset({Route(IPv4Network("192.0.2.1"), is_black_hole=True), Route(IPv4Network("192.0.2.2"))})
    assert static_routes(routes, 4, 65009) == (
        "route 192.0.2.1/32 blackhole { bgp_community.add((65535,666)); };\nroute 192.0.2.2/32 blackhole;\n"
    )


def test_ipv6_has_its_own_channel_and_next_hop() -> None:
    text = configuration(replace(BGP, local6=IPv6Address("2001:db8::2")), Path("/run/x"))
    assert "ipv6 { import none; next hop address 2001:db8::2; export filter" in text
    assert '\ninclude "/run/x/vips6.conf";\n' in text
    assert "ipv6" not in configuration(BGP, Path("/run/x"))


def test_an_ipv6_peer_without_an_own_ipv4_address_gets_ipv6_only() -> None:
    peers = (Peer(IPv6Address("2001:db8::1")),)
    text = configuration(replace(BGP, local=None, local6=IPv6Address("2001:db8::2"), peers=peers), Path("/run/x"))
    assert "local 2001:db8::2 as 65001; neighbor 2001:db8::1 as 64512;" in text
    assert "ipv4" not in text and "vips4" not in text


def test_neighbours_are_read_from_its_answers() -> None:
    assert parse_neighbours(PROTOCOLS, SESSIONS, BGP, 1700000005.0) == [
        Neighbour("10.0.1.1", 64512, "established", 5.0, 12, "up"),
        Neighbour("10.0.9.1", 7, "connect", None, 0, "", "Received: Bad peer AS"),
    ]


def test_a_speaker_that_says_nothing_is_down() -> None:
    assert {n.state for n in parse_neighbours("", "", BGP, 0.0)} == {"down"}


def test_an_answer_with_an_empty_block_is_of_no_session() -> None:
    """Found by tests.fuzz."""
    sessions = parse_neighbours("1002-\0" + " " * 40 + "\n1002-", "", BGP, 0.0)
    assert [peer.state for peer in sessions] == ["down", "down"]
    assert parse_neighbours(PROTOCOLS + "1002-", SESSIONS, BGP, 1_700_000_060.0)[0].state == "established"


def test_a_bird_that_hangs_is_the_reason_of_its_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lbmux.bgp.bird.ANSWER_S", 0.05)

    async def run() -> list[Neighbour]:
        async with await asyncio.start_unix_server(lambda reader, writer: None, tmp_path / "bird.ctl"):
            return await Bird(BGP, tmp_path).neighbours()

    sessions = asyncio.run(run())
    assert [(one.state, one.reason) for one in sessions] == [("unknown", HANGS)] * len(BGP.peers)
