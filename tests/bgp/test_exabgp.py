"""ExaBGP's configuration, and its events."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from lbmux.bgp.bgp_settings import Bgp, Peer, Route
from lbmux.bgp.exabgp import CHUNK, Session, change_commands, commands, configuration

BGP = Bgp(IPv4Address("10.0.1.2"), (Peer(IPv4Address("10.0.1.1")),), 65001, 9, "secret", ((64512, 7), (1, 2)), 50)


def test_a_session_has_its_settings() -> None:
    text = configuration(BGP, Path("/run/x"))
    for part in ("neighbor 10.0.1.1 {", "peer-as 64512;", "local-as 65001;", "hold-time 9;", 'md5-password "secret";'):
        assert part in text


def test_routes_carry_metric_and_communities() -> None:
    assert commands("announce", [IPv4Network("192.0.2.1")], BGP) == [
        "announce attributes next-hop 10.0.1.2 med 50 community [ 64512:7 1:2 ] nlri 192.0.2.1/32"
    ]


def test_ipv6_prefixes_have_their_own_next_hop() -> None:
    both = [IPv4Network("192.0.2.1"), IPv6Network("2001:db8::1")]
    bgp = Bgp(BGP.local, BGP.peers, local6=IPv6Address("2001:db8:9::1"))
    assert commands("announce", both, bgp) == [
        "announce attributes next-hop 10.0.1.2 nlri 192.0.2.1/32",
        "announce attributes next-hop 2001:db8:9::1 nlri 2001:db8::1/128",
    ]
    assert len(commands("announce", both, BGP)) == 1, "without an own address of that family"
    assert "ipv6 unicast;" in configuration(bgp, Path("/run/x"))


def test_an_ipv6_peer_without_an_own_ipv4_address_gets_ipv6_only() -> None:
    bgp = Bgp(None, (Peer(IPv6Address("2001:db8::1")),), local6=IPv6Address("2001:db8::2"))
    text = configuration(bgp, Path("/run/x"))
    for part in ("neighbor 2001:db8::1 {", "local-address 2001:db8::2;", "family { ipv6 unicast; }"):
        assert part in text


def test_many_prefixes_go_in_few_lines_and_none_is_lost() -> None:
    prefixes = {IPv4Network((0x0A000000 + n, 32)) for n in range(3 * CHUNK + 1)}
    lines = commands("withdraw", prefixes, BGP)
    assert len(lines) == 4
    assert {IPv4Network(name) for line in lines for name in line.partition("nlri ")[2].split()} == prefixes


def test_a_last_resort_has_a_longer_path_and_replaces_the_announcement() -> None:
    vip, bgp = IPv4Network("192.0.2.1"), Bgp(BGP.local, BGP.peers)
    plain, last = frozenset({Route(vip)}), frozenset({Route(vip, True)})
    assert change_commands(plain, last, bgp) == [
        "announce attributes next-hop 10.0.1.2 as-path [ 65001 65001 65001 65001 ] nlri 192.0.2.1/32"
    ]
    assert change_commands(last, plain, bgp) == ["announce attributes next-hop 10.0.1.2 nlri 192.0.2.1/32"]
    assert change_commands(last, frozenset(), bgp) == ["withdraw attributes next-hop 10.0.1.2 nlri 192.0.2.1/32"]


def test_a_black_hole_has_the_community_of_rfc_7999_beside_those_of_all_routes() -> None:
    vip, other = IPv4Network("192.0.2.1"), IPv4Network("192.0.2.2")
    before, after = frozenset({Route(vip), Route(other)}), frozenset({Route(vip, is_black_hole=True), Route(other)})
    assert change_commands(before, after, BGP) == [
        "announce attributes next-hop 10.0.1.2 med 50 community [ 64512:7 1:2 65535:666 ] nlri 192.0.2.1/32"
    ]


def event(kind: str, **neighbour: object) -> dict[str, object]:
    """Return an event in the format of ExaBGP 5."""
    return {"type": kind, "neighbor": {"address": {"peer": "10.0.1.1"}} | neighbour}


def notification(code: int, subcode: int, data: str) -> dict[str, object]:
    said = {"code": code, "subcode": subcode, "data": data, "message": ""}
    return event("notification", direction="receive", notification=said)


def after(*events: dict[str, object]) -> Session:
    session = Session()
    for one in events:
        session.update(one, 7.0)
    return session


REFUSED = event("state", state="down", reason="closing connection")


def test_a_notification_is_the_reason_and_stays_it_while_the_peer_takes_no_connection() -> None:
    session = after(
        event("fsm", state="OPENCONFIRM"), notification(2, 2, "0x0000FDE9"),
        event("state", state="down", reason="notification received (2,2)"), event("fsm", state="ACTIVE"), REFUSED,
    )  # fmt: skip
    assert session.reason == "notification received: OPEN message error: bad peer AS"
    assert (session.state, session.up_since) == ("idle", None)


def test_an_operators_text_is_logged() -> None:
    text = b"maintenance"
    session = after(notification(6, 2, "0x" + (bytes([len(text)]) + text).hex().upper()))
    assert session.reason == 'notification received: cease: administrative shutdown ("maintenance")'


def test_our_own_notification_is_a_reason() -> None:
    session = after(event("state", state="down", reason="notification sent (4,0)"))
    assert session.reason == "notification sent: hold timer expired"


def test_a_session_that_is_up_has_no_reason() -> None:
    session = after(REFUSED)
    assert session.reason == "connection refused, closed or lost"
    session.update(event("state", state="up"), 9.0)
    assert (session.state, session.up_since, session.reason) == ("established", 9.0, "")
    session.update(REFUSED, 10.0)
    assert (session.up_since, session.reason) == (None, "connection refused, closed or lost")


def test_no_change_writes_no_line() -> None:
    assert commands("announce", [], BGP) == []
