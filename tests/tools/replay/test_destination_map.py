"""Destinations that are replaced, with checksums as scapy computes them."""

from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from lbmux.tools.replay.destination_map import DestinationMap, Mapping
from lbmux.tools.replay.looped_capture import LoopedCapture
from tests.frames.captures import frame_at, pcap, record

MAPS = ("192.0.2.7=203.0.113.1", "192.0.2.7:80=203.0.113.2:8080", "2001:db8::7=2001:db8::80")
ODD = b"odd"
NOP = [IPOption_NOP()]


def mapped(directory: Path, *packets: Packet, maps: tuple[str, ...] = MAPS) -> tuple[list[Packet], int]:
    """The packets with their destinations replaced, and how many were."""
    (directory / "in").write_bytes(pcap(*(record(bytes(packet)) for packet in packets)))
    destinations = DestinationMap([Mapping.parse(text) for text in maps])
    with LoopedCapture(directory / "in", 1, destinations) as looped:
        (frames,) = [[Ether(frame_at(batch, at)) for at in range(batch.count)] for batch in looped.batches()]
    return frames, destinations.packets


def right(packet: Packet) -> bytes:
    """The packet with checksums that scapy computes from its fields."""
    whole = Ether(bytes(packet))
    for layer in (IP, TCP, UDP):
        if layer in whole:
            del whole[layer].chksum
    return bytes(whole)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (IP(dst="192.0.2.7") / TCP(dport=443) / ODD, IP(dst="203.0.113.1") / TCP(dport=443) / ODD),
        (IP(dst="192.0.2.7") / TCP(dport=80) / ODD, IP(dst="203.0.113.2") / TCP(dport=8080) / ODD),
        (IP(dst="192.0.2.7") / UDP(dport=53) / ODD, IP(dst="203.0.113.1") / UDP(dport=53) / ODD),
        (IP(dst="192.0.2.7", options=NOP) / UDP() / ODD, IP(dst="203.0.113.1", options=NOP) / UDP() / ODD),
        (IPv6(dst="2001:db8::7") / TCP() / ODD, IPv6(dst="2001:db8::80") / TCP() / ODD),
        (IPv6(dst="2001:db8::7") / UDP() / ODD, IPv6(dst="2001:db8::80") / UDP() / ODD),
    ],
)  # fmt: skip
def test_destination_is_replaced_and_checksums_are_right(tmp_path: Path, before: Packet, after: Packet) -> None:
    for link in (Ether(dst="02::1", src="02::2"), Ether(dst="02::1", src="02::2") / Dot1Q(vlan=7)):
        frames, count = mapped(tmp_path, link / before)
        assert (bytes(frames[0]), count) == (right(link / after), 1)


def test_others_stay_as_they_are(tmp_path: Path) -> None:
    link = Ether(dst="02::1", src="02::2")
    packets = [
        link / IP(dst="192.0.2.8") / TCP() / ODD,
        link / IP(src="192.0.2.7", dst="192.0.2.8") / UDP() / ODD,
        link / IP(dst="192.0.2.7") / ICMP(),
        link / IP(dst="192.0.2.7", flags="MF") / TCP() / ODD,
        link / Raw(bytes(60)),
    ]
    frames, count = mapped(tmp_path, *packets)
    assert ([bytes(frame) for frame in frames], count) == ([bytes(packet) for packet in packets], 0)


def test_wrong_checksum_stays_wrong_and_no_checksum_stays_none(tmp_path: Path) -> None:
    link = Ether(dst="02::1", src="02::2")
    wrong = Ether(bytes(link / IP(dst="192.0.2.7") / UDP(dport=53) / ODD))
    wrong[UDP].chksum ^= 0x0100
    (one, two), _ = mapped(tmp_path, wrong, link / IP(dst="192.0.2.7") / UDP(dport=53, chksum=0) / ODD)
    expected = Ether(right(link / IP(dst="203.0.113.1") / UDP(dport=53) / ODD))[UDP].chksum
    assert one[UDP].chksum != expected and (one[UDP].chksum - expected) % 0xFFFF in (0x0100, 0xFFFF - 0x0100)
    assert two[UDP].chksum == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("192.0.2.7", "is not ADDRESS=VIP or ADDRESS:PORT=VIP:PORT"),
        ("192.0.2.7=2001:db8::1", "both addresses must be IPv4, or both IPv6"),
        ("192.0.2.7:80=203.0.113.1", "both sides need a port, or neither"),
        ("192.0.2.7:0=203.0.113.1:80", "with a port of 1 to 65535"),
        ("192.0.2.7:99999=203.0.113.1:80", "with a port of 1 to 65535"),
        ("192.0.2.300=203.0.113.1", "is not an address, or ADDRESS:PORT"),
        ("host:80=203.0.113.1:80", "'host' is not an IPv4 or IPv6 address"),
        ("2001:db8::xyz:80=2001:db8::1", r"write an IPv6 address with a port as \[ADDRESS\]:PORT"),
    ],
)
def test_wrong_mapping(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Mapping.parse(text)


def test_mapping_as_text() -> None:
    for text in ("192.0.2.7=203.0.113.1", "192.0.2.7:80=203.0.113.2:8080", "[2001:db8::7]:1=[2001:db8::80]:2"):
        assert str(Mapping.parse(text)) == text


def test_two_mappings_of_one_destination() -> None:
    mappings = [Mapping.parse(text) for text in ("192.0.2.7=203.0.113.1", "192.0.2.7=203.0.113.2")]
    with pytest.raises(ValueError, match=r"192\.0\.2\.7 has two mappings: 192\.0\.2\.7=203\.0\.113\.1 and another"):
        DestinationMap(mappings)
