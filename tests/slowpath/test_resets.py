"""Resets as RFC 9293, section 3.10.7.1 has them, read by scapy."""

from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Raw

from lbmux.slowpath.resets import outside_of_window, reset
from lbmux.slowpath.slow_path_flow import Flow
from lbmux.wire.internet_checksum import is_valid
from lbmux.wire.packet import read_ip
from tests.slowpath.golden import CLIENT, CLIENT6, VIP, VIP6, dissect, ip

FAMILIES = pytest.mark.parametrize("family", [4, 6])


def answer(packet: Any) -> Any:
    parsed = read_ip(bytes(packet))
    assert parsed is not None
    built = reset(parsed)
    return None if built is None else dissect(built)


@FAMILIES
def test_a_segment_that_acknowledges_gets_its_own_number_back(family: int) -> None:
    built = answer(ip(family) / TCP(sport=40000, dport=80, flags="PA", seq=7, ack=9) / Raw(b"hello"))
    source, destination = (VIP, CLIENT) if family == 4 else (VIP6, CLIENT6)
    assert (built.src, built.dst) == (source, destination)
    tcp = built[TCP]
    assert (tcp.sport, tcp.dport, tcp.flags, tcp.seq, tcp.ack) == (80, 40000, "R", 9, 0)


@pytest.mark.parametrize(("flags", "length", "end"), [("", 5, 12), ("S", 0, 8), ("F", 5, 13), ("SF", 0, 9)])
def test_a_segment_without_ack_is_acknowledged(flags: str, length: int, end: int) -> None:
    tcp = answer(ip(4) / TCP(sport=40000, dport=80, flags=flags, seq=7) / Raw(bytes(length)))[TCP]
    assert (tcp.flags, tcp.seq, tcp.ack) == ("RA", 0, end)


def test_options_do_not_count_as_payload() -> None:
    packet = ip(4) / TCP(flags="S", seq=0xFFFFFFFF, options=[("MSS", 1460), ("NOP", None)])
    assert answer(packet)[TCP].ack == 0


@pytest.mark.parametrize(
    "packet",
    [
        ip(4) / TCP(flags="R"),
        ip(4) / TCP(flags="RA"),
        ip(4) / UDP(),
        IP(src=CLIENT, dst=VIP, frag=1, proto=6) / Raw(bytes(40)),
        IP(src=CLIENT, dst=VIP, proto=6) / Raw(bytes(19)),
    ],
    ids=["a reset", "a reset that acknowledges", "UDP", "a fragment", "half a header"],
)
def test_no_answer(packet: Any) -> None:
    assert answer(packet) is None


@FAMILIES
def test_a_challenge_ack_probe_has_the_flows_ends_and_a_valid_checksum(family: int) -> None:
    vip, client = (VIP, CLIENT) if family == 4 else (VIP6, CLIENT6)
    packet = outside_of_window(Flow(6, ip_address(client), 40000, ip_address(vip), 80))
    built, parsed = dissect(packet), read_ip(packet)
    assert (built.src, built.dst, built[TCP].sport, built[TCP].dport) == (vip, client, 80, 40000)
    assert str(built[TCP].flags) == "A" and not bytes(built[TCP].payload)
    assert parsed is not None and is_valid(parsed.source, parsed.destination, 6, parsed.payload)
