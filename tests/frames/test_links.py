"""Frames of each link type as the data path gets them: with an Ethernet header in the place of their own."""

import struct
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import CookedLinux, CookedLinuxV2, Dot1Q, Loopback
from scapy.layers.ppp import HDLC, PPP, PPPoE
from scapy.packet import Packet

from tests.frames.captures import pcap, read_bytes, record

IPV4, IPV6 = bytes(IP(dst="192.0.2.1") / TCP(dport=80)), bytes(IPv6(dst="2001:db8::80") / TCP(dport=80))
AS_IPV4, AS_IPV6, AS_OTHER = bytes(12) + b"\x08\x00", bytes(12) + b"\x86\xdd", bytes(14)
NULL, LOOP, PPP_LINK, PPP_HDLC, PPPOE, CISCO_HDLC, SLL, SLL2 = 0, 108, 9, 50, 51, 104, 113, 276
PPPD, PPP_WITH_DIRECTION = 166, 204


def only(directory: Path, link: int, data: bytes, original: int | None = None) -> bytes:
    ((read,), error) = read_bytes(directory, pcap(record(data, original=original), link=link))
    assert error is None
    return read.data


@pytest.mark.parametrize(
    ("link", "header"),
    [(SLL, CookedLinux()), (SLL2, CookedLinuxV2()), (PPP_LINK, PPP()), (PPP_LINK, HDLC() / PPP()),
     (PPP_HDLC, HDLC() / PPP()), (PPPOE, PPPoE() / PPP())],
    ids=["sll", "sll2", "ppp", "ppp framed", "ppp-ser", "pppoe"],
)  # fmt: skip
@pytest.mark.parametrize(("packet", "wanted"), [(IPV4, AS_IPV4), (IPV6, AS_IPV6)], ids=["ipv4", "ipv6"])
def test_headers_that_scapy_makes(tmp_path: Path, link: int, header: Packet, packet: bytes, wanted: bytes) -> None:
    whole = bytes(header / (IP(packet) if packet is IPV4 else IPv6(packet)))
    assert only(tmp_path, link, whole) == wanted + packet


@pytest.mark.parametrize(
    ("link", "header", "wanted"),
    [
        (NULL, struct.pack("<I", 2), AS_IPV4), (NULL, struct.pack(">I", 2), AS_IPV4), (LOOP, b"\0\0\0\x02", AS_IPV4),
        *((NULL, struct.pack("<I", family), AS_IPV6) for family in (10, 23, 24, 28, 30)),
        (LOOP, b"\0\0\0\x1e", AS_IPV6), (NULL, struct.pack("<I", 7), AS_OTHER), (LOOP, b"\xff\xff\xff\xff", AS_OTHER),
        (PPP_LINK, b"\x21", AS_IPV4), (PPP_LINK, b"\x57", AS_IPV6), (PPP_LINK, b"\xff\x03\x21", AS_IPV4),
        (PPP_LINK, b"\xc0\x21", AS_OTHER), (PPP_LINK, b"\x01\x21", bytes(14) + b"\x21"),
        (PPP_WITH_DIRECTION, b"\x01\xff\x03\x00\x21", AS_IPV4), (PPPD, b"\x00\x03\x00\x57", AS_IPV6),
        (PPP_HDLC, b"\x0f\x00\x08\x00", AS_IPV4), (CISCO_HDLC, b"\x8f\x00\x86\xdd", AS_IPV6),
        (SLL, bytes(14) + b"\x00\x04", bytes(12) + b"\x00\x04"),
    ],
)  # fmt: skip
def test_header_bytes(tmp_path: Path, link: int, header: bytes, wanted: bytes) -> None:
    assert only(tmp_path, link, header + IPV4) == wanted + IPV4


@pytest.mark.parametrize(("link", "header"), [(SLL, CookedLinux()), (SLL2, CookedLinuxV2())])
def test_cooked_frame_keeps_its_vlan_tag(tmp_path: Path, link: int, header: Packet) -> None:
    assert only(tmp_path, link, bytes(header / Dot1Q(vlan=5) / IP(IPV4))) == bytes(12) + b"\x81\0\0\x05\x08\0" + IPV4


@pytest.mark.parametrize(
    ("link", "size"),
    [(NULL, 4), (LOOP, 4), (SLL, 16), (SLL2, 20), (PPP_LINK, 4), (PPPOE, 10), (PPP_WITH_DIRECTION, 5), (PPPD, 6)],
)
def test_a_truncated_header_is_not_a_packet(tmp_path: Path, link: int, size: int) -> None:
    for length in range(size):
        assert only(tmp_path, link, bytes([2] * length)) == AS_OTHER


def test_cut_by_the_snap_length_is_filled(tmp_path: Path) -> None:
    data = bytes(CookedLinux() / IP(IPV4))
    assert only(tmp_path, SLL, data, original=len(data) + 60) == AS_IPV4 + IPV4 + bytes(60)


def test_loopback_as_scapy_reads_it(tmp_path: Path) -> None:
    assert only(tmp_path, NULL, bytes(Loopback() / IP(IPV4))) == AS_IPV4 + IPV4
