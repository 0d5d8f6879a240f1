"""Checksums, against RFC 1071's own example and scapy's."""

import random
from ipaddress import ip_address

import pytest
from scapy.utils import checksum as scapy_checksum

from lbmux.wire.internet_checksum import adjusted, checksum, is_valid, with_checksum
from lbmux.wire.numbers import ICMP_PROTOCOL, ICMPV6_PROTOCOL, TCP_PROTOCOL, UDP_PROTOCOL
from tests.slowpath.golden import CLIENT, CLIENT6, VIP, VIP6, datagram, ip, read, segment


def test_rfc_1071_example() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


def test_same_as_scapy() -> None:
    chance = random.Random(2)
    for data in [b"", bytes(8), b"\xff" * 8, b"\x01", *(chance.randbytes(chance.randrange(200)) for _ in range(500))]:
        assert checksum(data) == scapy_checksum(data)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(
    ("carried", "protocol"), [(segment(), TCP_PROTOCOL), (datagram(33), UDP_PROTOCOL)], ids=["tcp", "udp"]
)
def test_transport(family: int, carried: object, protocol: int) -> None:
    packet = read(ip(family) / carried)
    blank = packet.payload[:16] + b"\x12\x34" + packet.payload[18:] if protocol == TCP_PROTOCOL else packet.payload
    assert with_checksum(packet.source, packet.destination, protocol, blank) == packet.payload
    assert is_valid(packet.source, packet.destination, protocol, packet.payload)


def test_a_zero_udp_checksum_is_sent_as_ones() -> None:
    source, destination = ip_address(CLIENT), ip_address(VIP)
    blank = bytes(4) + b"\0\x0a\0\0"
    rest = int.from_bytes(with_checksum(source, destination, UDP_PROTOCOL, blank + bytes(2))[6:8], "big")
    made = with_checksum(source, destination, UDP_PROTOCOL, blank + rest.to_bytes(2, "big"))
    assert made[6:8] == b"\xff\xff"


def test_icmp_has_no_pseudo_header_but_icmpv6_has() -> None:
    message = bytes([8, 0, 0, 0, 1, 2, 3, 4])
    old = with_checksum(ip_address(CLIENT), ip_address(VIP), ICMP_PROTOCOL, message)
    new = with_checksum(ip_address(CLIENT6), ip_address(VIP6), ICMPV6_PROTOCOL, message)
    assert checksum(old) == 0 and checksum(new) != 0


def test_an_adjusted_checksum_equals_a_computed_one() -> None:
    chance = random.Random(3)
    for _ in range(2000):
        data = chance.randbytes(40)
        changed = chance.randbytes(8) + data[8:]
        assert adjusted(checksum(data), data[:8], changed[:8]) == checksum(changed)
