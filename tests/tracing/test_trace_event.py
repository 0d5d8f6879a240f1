"""The filter of frames and what is read from their headers, each against packets that scapy made."""

from collections import Counter
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet

from lbmux.datapath.verdicts import Verdict
from lbmux.frames.frame_copy import FrameCopy
from lbmux.tables.flow_filter import FilterError
from lbmux.tracing.trace_event import (
    Budget,
    HeaderSummary,
    Names,
    SlowPathNote,
    TraceEvent,
    note_slow_path,
    parse,
    without_tunnel,
)
from tests.linux.inside import CONFIG, Inside

CLIENT, VIP = "198.51.100.7", "192.0.2.1"
LINK = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")  # else scapy asks the machine's own network for them
ENDS: dict[str, Any] = {"src": CLIENT, "dst": VIP}
SYN = LINK / IP(**ENDS) / TCP(sport=4000, dport=80, flags="S")
TAGGED = LINK / Dot1Q(vlan=5) / IP(**ENDS) / TCP(sport=4001, dport=80, flags="PA")
DNS = LINK / IP(src=CLIENT, dst="192.0.2.2") / UDP(sport=4002, dport=53)
PING = LINK / IP(**ENDS) / ICMP()
PING6 = LINK / IPv6(src="2001:db8::7", dst="2001:db8::1") / ICMPv6EchoRequest()
WEB6 = LINK / IPv6(src="2001:db8::7", dst="2001:db8::1") / TCP(sport=4003, dport=443, flags="S")
LATER = LINK / IP(**ENDS, proto=6, frag=100) / bytes(40)
QUESTION = LINK / ARP()
OPTIONS = LINK / IP(**ENDS, options=[b"\x07\x07\x04\x00\x00\x00\x00\x00"]) / TCP(sport=4004, dport=80)
FRAMES = {
    "syn": SYN, "tagged": TAGGED, "dns": DNS, "ping": PING, "ping6": PING6, "web6": WEB6, "later": LATER,
    "arp": QUESTION, "options": OPTIONS,
}  # fmt: skip
SAID = {"syn": (Verdict.FORWARDED, "web", "h1"), "dns": (Verdict.DENIED, "dns", None)}


def pictured(frame: Packet) -> FrameCopy:
    return FrameCopy(bytes(frame), len(frame), 0, 0)


@pytest.fixture(scope="module")
def inside() -> Inside:
    return Inside()


def event(name: str) -> TraceEvent:
    verdict, service, backend = SAID.get(name, (Verdict.NOT_VIP, None, None))
    return TraceEvent(pictured(FRAMES[name]), verdict, service, backend)


@pytest.mark.parametrize(
    ("text", "found"),
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
def test_finds(inside: Inside, text: str, found: set[str]) -> None:
    test = parse(text, inside.snapshot)
    assert {name for name in FRAMES if test(event(name))} == found


@pytest.mark.parametrize(
    ("did", "sent", "dropped"),
    [
        ([], False, False),  # a fragment that waits, or one for the kernel's stack
        (["from_mux"], False, False),
        (["fragment_timeout"], False, False),  # another's
        (["fragment_timeout", "fragment_overlap"], False, True),
        (["path_mtu_learned"], False, False),
        (["path_mtu_learned", "over_icmp_per_s"], False, True),
        (["icmp_no_flow"], False, True),
        (["over_packets_per_s"], False, True),
        (["echo_answered"], True, False),
        (["echo_answered"], False, True),  # which the kernel did not take
        (["fragment_forwarded", "not_tunnelled"], True, False),  # in part
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
        ("verdict lost", "there is no verdict 'lost'"),
        ("idle > 5", "'idle' is not understood of frames"),
        ("state trusted", "'state' is not understood of frames"),
        ("net 192.0.2.1/8", "host bits"),
        ("tcp and", "ends too early"),
        ("service nothing", "there is no service 'nothing'"),
    ],
)
def test_refuses(inside: Inside, text: str, reason: str) -> None:
    with pytest.raises(FilterError, match=reason):
        parse(text, inside.snapshot)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("syn", f"{CLIENT}:4000 > {VIP}:80 tcp [S], 40 bytes"),
        ("tagged", f"{CLIENT}:4001 > {VIP}:80 tcp [P.], 40 bytes"),
        ("options", f"{CLIENT}:4004 > {VIP}:80 tcp [S], 48 bytes"),
        ("ping", f"{CLIENT} > {VIP} icmp, 28 bytes"),
        ("later", f"{CLIENT} > {VIP} tcp, 60 bytes"),
        ("web6", "[2001:db8::7]:4003 > [2001:db8::1]:443 tcp [S], 60 bytes"),
        ("arp", "not IP, 42 bytes"),
    ],
)
def test_describes(name: str, line: str) -> None:
    assert str(HeaderSummary.read(bytes(FRAMES[name]))) == line


@pytest.mark.parametrize("frame", [SYN, TAGGED, WEB6, OPTIONS, PING])
def test_reads_a_frame_cut_anywhere(frame: Packet) -> None:
    whole = bytes(frame)
    for length in range(len(whole)):
        assert HeaderSummary.read(whole[:length]).source in (None, HeaderSummary.read(whole).source)


@pytest.mark.parametrize("padding", [b"", bytes(6)])
@pytest.mark.parametrize("inner", [SYN, WEB6, DNS])
@pytest.mark.parametrize("between", [None, UDP(dport=6080)])
def test_takes_the_tunnel_off(inner: Packet, between: Packet | None, padding: bytes) -> None:
    packet = inner.payload
    protocol = 4 if isinstance(packet, IP) else 41
    outer = IP(dst="10.1.1.2", proto=protocol) if between is None else IP(dst="10.1.1.2") / between
    left = bytes(Ether(type=0x0800) / outer / bytes(packet)) + padding
    bare = Ether(without_tunnel(bytes(inner), left))
    assert bytes(bare.payload) == bytes(packet)


def test_notes_what_the_slow_path_counted_for_one_frame() -> None:
    counts, ping = Counter(echo_answered=3, icmp_no_flow=1), event("ping")
    with note_slow_path(ping, counts) as note:
        counts["echo_answered"] += 1
        note.sent.append(pictured(PING))
    counts["time_exceeded"] += 1  # for another frame
    assert ping.slow is note and (note.did, note.sent) == (["echo_answered"], [pictured(PING)])


def test_names_by_row_or_else_by_destination(inside: Inside) -> None:
    names, row = Names(), inside.snapshot.rows["web", "h2"]
    assert names.of(inside.snapshot, HeaderSummary.read(bytes(SYN)), row) == ("web", "h2")
    assert names.of(inside.snapshot, HeaderSummary.read(bytes(DNS)), -1) == ("dns", None)
    assert names.of(inside.snapshot, HeaderSummary.read(bytes(PING)), -1) == (None, None)


def to_vip(protocol: int, port: int) -> HeaderSummary:
    return HeaderSummary(ip_address(CLIENT), ip_address(VIP), protocol, 4000, port)


def test_names_a_service_of_many_ports() -> None:
    web, dns = CONFIG["services"]
    dns = dns | {"vip": VIP, "protocol": "tcp"}
    few, rest = dns | {"name": "few", "port": 1000, "port_to": 1009}, dns | {"name": "rest", "port": "any"}
    snapshot, names = Inside(CONFIG | {"services": [web, few, rest]}).snapshot, Names()
    ports = {80: "web", 999: "rest", 1000: "few", 1005: "few", 1009: "few", 1010: "rest", 65535: "rest"}
    for port, name in ports.items():
        assert names.of(snapshot, to_vip(6, port), -1) == (name, None)
    assert names.of(snapshot, to_vip(17, 80), -1) == (None, None)


def test_names_no_service_of_a_port_that_none_has() -> None:
    web, dns = CONFIG["services"]
    snapshot = Inside(CONFIG | {"services": [web | {"port_to": 89}, dns]}).snapshot
    for port, name in ((79, None), (80, "web"), (89, "web"), (90, None)):
        assert Names().of(snapshot, to_vip(6, port), -1) == (name, None)


def test_looks_at_a_bounded_number_a_second_and_counts_the_rest() -> None:
    budget = Budget(1000, now=0.0)
    assert [budget.take(400, now=0.0) for _ in range(2)] == [400, 400] and not budget.is_spent
    assert budget.take(400, now=0.0) == 200 and budget.is_spent
    assert (budget.take(100, now=0.05), budget.skipped) == (50, 250)
    assert budget.take(5000, now=100.0) == 1000
