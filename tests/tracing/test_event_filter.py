"""The filter of trace events, against frames that scapy made."""

import pytest

from lbmux.tables.flow_filter import FilterError
from lbmux.tracing.event_filter import parse
from lbmux.tracing.trace_event import SlowPathNote
from tests.linux.inside import Inside
from tests.tracing.traced_frames import FRAMES, PING, event, pictured


@pytest.fixture(scope="module")
def inside() -> Inside:
    return Inside()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", set(FRAMES)),
        ("ip", set(FRAMES) - {"ping6", "web6", "arp"}),
        ("ip6", {"ping6", "web6"}),
        ("tcp", {"syn", "tagged", "web6", "later", "options"}),
        ("tcp port 80", {"syn", "tagged", "options"}),
        ("udp or icmp", {"dns", "ping", "ping6"}),
        ("icmp and not ip6", {"ping"}),
        ("src port 4000 or 4001", {"syn", "tagged"}),
        ("dst portrange 53-80", {"syn", "tagged", "dns", "options"}),
        ("dst host 192.0.2.2", {"dns"}),
        ("src net 2001:db8::/32", {"ping6", "web6"}),
        ("net 0.0.0.0/0 and not tcp", {"dns", "ping"}),
        ("drop", {"dns"}),
        ("verdict forwarded", {"syn"}),
        ("not (drop or verdict not_vip)", {"syn"}),
        ("service web", {"syn"}),
        ("backend web/h1", {"syn"}),
        ("service dns and backend h1", set()),
    ],
)
def test_finds(inside: Inside, text: str, expected: set[str]) -> None:
    test = parse(text, inside.snapshot)
    assert {name for name in FRAMES if test(event(name))} == expected


@pytest.mark.parametrize(
    ("did", "sent", "dropped"),
    [
        ([], False, False),  # a queued fragment, or one for the kernel's stack
        (["from_mux"], False, False),
        (["fragment_timeout"], False, False),  # of another frame
        (["fragment_timeout", "fragment_overlap"], False, True),
        (["path_mtu_learned"], False, False),
        (["path_mtu_learned", "over_icmp_per_s"], False, True),
        (["icmp_no_flow"], False, True),
        (["over_packets_per_s"], False, True),
        (["echo_answered"], True, False),
        (["echo_answered"], False, True),  # refused by the kernel
        (["fragment_forwarded", "not_tunnelled"], True, False),  # partly
    ],
)
def test_finds_what_the_slow_path_dropped(inside: Inside, did: list[str], sent: bool, dropped: bool) -> None:
    ping = event("ping")
    ping.slow = SlowPathNote(did, [pictured(PING)] if sent else [])
    assert bool(parse("drop", inside.snapshot)(ping)) is dropped
    assert parse("verdict not_vip", inside.snapshot)(ping), "which stays as it is"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("verdict lost", "unknown verdict 'lost'"),
        ("idle > 5", "'idle' does not apply to frames"),
        ("state trusted", "'state' does not apply to frames"),
        ("net 192.0.2.1/8", "host bits"),
        ("tcp and", "ends too early"),
        ("service nothing", "unknown service 'nothing'"),
        ("(" * 100_000, "more than 256 words"),
        ("not " * 100_000, "more than 256 words"),
    ],
)
def test_refuses(inside: Inside, text: str, reason: str) -> None:
    with pytest.raises(FilterError, match=reason):
        parse(text, inside.snapshot)
