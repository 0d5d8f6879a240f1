"""The filter's grammar, each primitive against what it should find, and what it says of what is wrong."""

import pytest

from lbmux.tables import live_flows
from lbmux.tables.flow_filter import MOST_WORDS, FilterError, parse
from tests.linux.inside import Inside, agent_with_a_flow, client, dns


@pytest.fixture(scope="module")
def inside() -> Inside:
    """Clients .7 (ports 1000 to 1004; 1000 twice, so trusted), .8 (80; long idle), .9 (dns)."""
    made = Inside()
    made.send(*(client(port) for port in range(1000, 1005)), client(1000))
    made.send(client(80, host=8), before_ticks=600_000)
    made.send(dns())
    return made


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("tcp", 6),
        ("udp", 1),
        ("ip", 7),
        ("ip6", 0),
        ("src host 198.51.100.8", 1),
        ("host 198.51.100.8", 1),
        ("198.51.100.8", 1),
        ("dst 198.51.100.8", 0),
        ("dst host 192.0.2.2", 1),
        ("host 192.0.2.1", 6),
        ("src net 198.51.100.0/24", 7),
        ("src net 198.51.100.8/29", 1),
        ("net 192.0.2.0/31", 6),
        ("src net 0.0.0.0/0", 7),
        ("src net ::/0", 0),
        ("src net 2001:db8::/32", 0),
        ("port 80", 6),
        ("src port 80", 1),
        ("dst port 53", 1),
        ("src port 1000 or 1001", 2),
        ("src portrange 1001-1003", 3),
        ("tcp port 80", 6),
        ("udp port 80", 0),
        ("tcp src port 1000", 1),
        ("service web", 6),
        ("backend dns/h1", 1),
        ("backend h1 or backend h2", 7),
        ("state trusted", 1),
        ("state untrusted and not udp", 5),
        ("idle > 300", 1),
        ("idle>300", 1),
        ("idle <= 300s", 6),
        ("idle != 600.5", 7),
        ("not tcp", 1),
        ("! tcp", 1),
        ("tcp && src port 1000 || udp", 2),
        ("udp or tcp and src port 1000", 1),
        ("udp or (tcp and src port 1000)", 2),
        ("not (udp or src port 1000)", 5),
        ("not not udp", 1),
    ],
)
def test_finds(text: str, count: int, inside: Inside) -> None:
    assert live_flows.count(inside.snapshot, parse(text, inside.snapshot)) == count


def test_at_an_agent_the_destination_is_the_vip() -> None:
    snapshot = agent_with_a_flow()
    for text in ("dst host 192.0.2.1", "dst port 80", "src port 40000", "service web and backend h1"):
        assert live_flows.count(snapshot, parse(text, snapshot)) == 1, text
    assert live_flows.count(snapshot, parse("port 8080", snapshot)) == 0


@pytest.mark.parametrize(
    ("text", "at", "said"),
    [
        ("tcp and", 7, "too early"),
        ("(tcp", 4, "parenthesis"),
        ("tcp )", 4, "and, or?"),
        ("tcp udp", 4, "and, or?"),
        ("frobnicate", 0, "unknown word"),
        ("port http", 5, "not a number from 0 to 65535"),
        pytest.param("port " + "9" * 5000, 5, "not a number from 0 to 65535", id="5000 digits"),
        ("port 65536", 5, "not a number"),
        ("host 1.2.3", 5, "IPv4"),
        ("net 10.0.0.1/8", 4, "host bits"),
        ("service nope", 8, "use one of web, dns"),
        ("backend web/h9", 8, "web/h1"),
        ("state established", 6, "trusted"),
        ("idle 5", 5, "compared"),
        ("idle > soon", 7, "seconds"),
        ("src", 3, "missing"),
        ("tcp & udp", 4, "unexpected '&'"),
        ("80", 0, "unknown word"),
    ],
)
def test_refuses_and_marks_the_error(text: str, at: int, said: str, inside: Inside) -> None:
    with pytest.raises(FilterError) as refused:
        parse(text, inside.snapshot)
    assert refused.value.at == at
    assert said in str(refused.value)


@pytest.mark.parametrize("text", ["(" * 100_000, "not " * 100_000, "(" * 500 + "tcp" + ")" * 500, "tcp and " * 50_000])
def test_nesting_without_end_is_refused(text: str, inside: Inside) -> None:
    with pytest.raises(FilterError) as refused:
        parse(text, inside.snapshot)
    assert f"more than {MOST_WORDS} words" in str(refused.value)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("text", ["(" * 127 + "tcp" + ")" * 127, "not " * 254 + "tcp", "tcp" + " and tcp" * 127])
def test_as_many_words_as_there_may_be(text: str, inside: Inside) -> None:
    assert live_flows.count(inside.snapshot, parse(text, inside.snapshot)) == live_flows.count(
        inside.snapshot, parse("tcp", inside.snapshot)
    )
