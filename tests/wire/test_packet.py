"""Reading frames and packets, against scapy's."""

import random
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

from lbmux.wire.header_layouts import MOST_EXTENSIONS
from lbmux.wire.internet_checksum import is_valid
from lbmux.wire.numbers import ACK, TCP_PROTOCOL, UDP_PROTOCOL
from lbmux.wire.packet import (
    destination_of,
    ethernet_header,
    ip_packet,
    read_frame,
    read_ip,
    reversed_link,
    source_bytes,
    tcp_header,
    transport_packet,
    udp_header,
    version_of,
    with_ethertype,
)
from tests.slowpath.golden import CLIENT, CLIENT6, ETHER, VIP, VIP6, datagram, dissect, ip, read, segment


@pytest.mark.parametrize("family", [4, 6])
def test_tcp(family: int) -> None:
    packet = read(Ether(**ETHER) / ip(family) / segment())
    assert str(packet.source) == (CLIENT if family == 4 else CLIENT6)
    assert str(packet.destination) == (VIP if family == 4 else VIP6)
    assert (packet.protocol, packet.ports, packet.hops, packet.is_fragment) == (6, (40000, 80), 64, False)
    assert packet.payload[-100:] == bytes(100)


@pytest.mark.parametrize("family", [4, 6])
def test_source_without_parsing(family: int) -> None:
    frame = bytes(Ether(**ETHER) / ip(family) / segment())
    packet = read_frame(frame)
    assert packet is not None and source_bytes(frame) == packet.source.packed
    assert source_bytes(bytes(Ether(**ETHER) / Dot1Q(vlan=5) / ip(family) / segment())) == b""
    assert source_bytes(b"") == source_bytes(bytes(Ether(**ETHER) / ARP())) == b""


def test_link_padding_is_not_part_of_the_packet() -> None:
    packet = read(Ether(**ETHER) / ip(4) / segment(0) / Raw(b""))
    padded = read_frame(bytes(Ether(**ETHER) / ip(4) / segment(0)) + bytes(6))
    assert padded == packet


@pytest.mark.parametrize("tags", [Dot1Q(vlan=7), Dot1AD(vlan=3) / Dot1Q(vlan=7)], ids=["802.1Q", "QinQ"])
def test_a_reversed_link_header_keeps_its_vlan_tags(tags: object) -> None:
    frame = Ether(**ETHER) / tags / ip(4) / segment()  # type: ignore[operator]
    packet = read(frame)
    assert packet.ports == (40000, 80)
    answer = Ether(reversed_link(packet.link) + packet.data)
    assert (answer.src, answer.dst, answer[Dot1Q].vlan) == (ETHER["dst"], ETHER["src"], frame[Dot1Q].vlan)


def test_a_third_vlan_tag_is_not_parsed() -> None:
    assert read_frame(bytes(Ether(**ETHER) / Dot1Q() / Dot1Q() / Dot1Q() / ip(4) / segment())) is None


def test_arp_is_not_an_ip_packet() -> None:
    assert read_frame(bytes(Ether(**ETHER) / ARP())) is None


def test_an_ethernet_type_of_the_other_family_is_refused() -> None:
    assert read_frame(bytes(Ether(**ETHER, type=0x86DD) / Raw(bytes(ip(4) / segment())))) is None


def test_ipv4_options() -> None:
    assert read(ip(4, options=[IPOption_NOP()] * 7) / segment()).ports == (40000, 80)


def test_ipv6_extension_headers() -> None:
    chain = IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting(addresses=[CLIENT6]) / IPv6ExtHdrDestOpt()
    assert read(ip(6) / chain / segment()).ports == (40000, 80)


def test_ipv6_extension_headers_have_a_bound() -> None:
    fits, over = ip(6), ip(6)
    for _ in range(MOST_EXTENSIONS):
        fits, over = fits / IPv6ExtHdrDestOpt(), over / IPv6ExtHdrDestOpt()
    assert read(fits / segment()).ports == (40000, 80)
    assert read_ip(bytes(over / IPv6ExtHdrDestOpt() / segment())) is None


def test_ipv4_fragment() -> None:
    packet = read(IP(src=CLIENT, dst=VIP, id=77, frag=185, flags="MF", proto=17) / Raw(bytes(64)))
    assert (packet.identification, packet.offset_bytes, packet.more, packet.ports) == (77, 1480, True, None)
    assert not packet.dont_fragment


def test_ipv6_fragment() -> None:
    header = IPv6ExtHdrFragment(id=0x12345678, offset=181, m=0, nh=17)
    packet = read(ip(6) / IPv6ExtHdrHopByHop() / header / Raw(bytes(64)))
    assert (packet.identification, packet.offset_bytes, packet.more) == (0x12345678, 1448, False)
    assert (packet.protocol, packet.fragment_at, packet.payload) == (17, 48, bytes(64))


def test_ipv6_later_fragment_is_not_read_as_a_header() -> None:
    header = IPv6ExtHdrFragment(id=1, offset=1, m=0, nh=60)  # destination options, in the first fragment
    packet = read(ip(6) / header / Raw(b"\xff" * 16))
    assert (packet.protocol, packet.payload) == (60, b"\xff" * 16)


def test_a_quote_ends_early() -> None:
    whole = bytes(ip(4) / segment())
    assert read_ip(whole[:28]) is None
    packet = read_ip(whole[:28], truncated=True)
    assert packet is not None and packet.ports == (40000, 80) and packet.length_bytes == len(whole)


@pytest.mark.parametrize("packet", [ip(4) / segment(8), ip(6) / IPv6ExtHdrHopByHop() / datagram(8)], ids=["4", "6"])
def test_truncation_and_flipped_bytes_never_raise(packet: object) -> None:
    frame, chance = bytes(Ether(**ETHER) / packet), random.Random(1)
    for end in range(len(frame)):
        read_frame(frame[:end])
        read_ip(frame[14:end], truncated=True)
    for _ in range(5000):
        data = bytearray(frame)
        for _ in range(3):
            data[chance.randrange(12, len(data))] = chance.randrange(256)
        parsed = read_frame(bytes(data))
        assert parsed is None or parsed.transport <= len(parsed.data)


@pytest.mark.parametrize(("source", "destination"), [(CLIENT, VIP), (CLIENT6, VIP6)])
def test_a_packet_of_our_own(source: str, destination: str) -> None:
    data = ip_packet(ip_address(source), ip_address(destination), 6, bytes(TCP(sport=1, dport=2)), traffic_class=0xB8)
    parsed = IP(data) if data[0] >> 4 == 4 else IPv6(data)
    assert (parsed.src, parsed.dst, parsed[TCP].dport) == (source, destination, 2)
    assert dissect(ip_packet(ip_address(source), ip_address(destination), 59, b"")).src == source


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", [TCP_PROTOCOL, UDP_PROTOCOL], ids=["tcp", "udp"])
def test_a_built_segment_reads_back_with_valid_checksums(family: int, protocol: int) -> None:
    source, destination = (ip_address(one) for one in ((CLIENT, VIP) if family == 4 else (CLIENT6, VIP6)))
    header = tcp_header(40000, 80, ACK, 7, 9, 512) if protocol == TCP_PROTOCOL else udp_header(40000, 80, 4)
    packet = transport_packet(source, destination, protocol, header + b"data")
    parsed = read_frame(ethernet_header(family) + packet)
    assert parsed is not None and parsed.ports == (40000, 80) and parsed.payload[-4:] == b"data"
    assert is_valid(source, destination, protocol, parsed.payload)
    assert (version_of(packet), destination_of(packet)) == (family, destination)
    seen = dissect(packet)
    assert seen[TCP].ack == 9 if protocol == TCP_PROTOCOL else seen[UDP].len == 12


def test_a_built_ipv4_packet_may_allow_fragments() -> None:
    source, destination = ip_address(CLIENT), ip_address(VIP)
    kept = [read_ip(ip_packet(source, destination, 17, bytes(8), dont_fragment=df)) for df in (True, False)]
    assert [packet is not None and packet.dont_fragment for packet in kept] == [True, False]


def test_another_ethernet_type_behind_the_tags() -> None:
    tagged = bytes(Ether(**ETHER) / Dot1Q(vlan=7) / ip(4))[:18]
    assert with_ethertype(tagged, 6) == bytes(Ether(**ETHER) / Dot1Q(vlan=7) / ip(6))[:18]
