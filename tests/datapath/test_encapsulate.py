"""What a mux sends, dissected layer by layer with scapy (RFC 2003)."""

from ipaddress import ip_address

import pytest
from scapy.contrib.geneve import GENEVE
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Packet, Raw

from lbmux.datapath.verdicts import Verdict
from tests.datapath import plain_packet
from tests.datapath.craft import Craft
from tests.datapath.harness import Frames, Machine
from tests.datapath.plain_mux import Backend, Service

CLIENT, VIP = "198.51.100.7", "192.0.2.1"
CLIENT6, VIP6, MUX6, HOST6 = "2001:db8:1::7", "2001:db8::1", "2001:db8:9::1", "2001:db8:7::9"
INBOUND = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")


def through(packet: Ether, **backend: object) -> tuple[Verdict, bytes]:
    """What becomes of a frame at a mux with one backend."""
    fields = {"remote": bytes([10, 1, 0, 9])} | backend
    host = Backend(destination_mac=bytes.fromhex("02aabbccddee"), source_mac=bytes.fromhex("021122334455"), **fields)  # type: ignore[arg-type]
    machine = Machine.make(16)
    vips = [ip_address(vip).packed for vip in (VIP, VIP6)]
    machine.install_mux([Service(vip, *port, (0,)) for vip in vips for port in ((6, 80), (17, 53))], [host])
    batch = Frames([bytes(packet)])
    machine.worker.forward(batch, 1)
    ((verdict, _, after),) = batch.results()
    return verdict, after


def a_hop_on(packet: Packet) -> bytes:
    """The packet with one hop less and the header checksum that goes with it."""
    after = packet.copy()
    if IPv6 in after:
        after.hlim -= 1
    else:
        after.ttl -= 1
        del after.chksum
    return bytes(after)


def right_checksum(layer: IP) -> int:
    copy = layer.copy()
    del copy.chksum
    return IP(bytes(copy)).chksum


@pytest.mark.parametrize("flags", ["", "DF"])
@pytest.mark.parametrize("tos", [0, 0xB8, 0x03])
@pytest.mark.parametrize("identification", [0, 0xBEEF])
def test_tcp_layer_by_layer(flags: str, tos: int, identification: int) -> None:
    header = IP(src=CLIENT, dst=VIP, tos=tos, id=identification, flags=flags, ttl=7)
    inner = IP(bytes(header / TCP(sport=40000, dport=80) / b"GET /"))  # with its checksums
    verdict, after = through(INBOUND / inner)
    assert verdict == Verdict.FORWARDED
    sent = Ether(after)
    assert (sent.src, sent.dst, sent.type) == ("02:11:22:33:44:55", "02:aa:bb:cc:dd:ee", 0x0800)
    outer = sent[IP]
    assert (outer.version, outer.ihl, outer.ttl, outer.proto, outer.frag) == (4, 5, 64, 4, 0)
    assert (outer.src, outer.dst) == ("10.0.0.1", "10.1.0.9")
    assert (outer.tos, outer.id, outer.flags) == (tos, identification, flags)
    assert outer.len == 20 + inner.len == len(after) - 14
    assert outer.chksum == right_checksum(outer)
    assert bytes(outer.payload) == a_hop_on(inner)
    assert outer.payload[TCP][Raw].load == b"GET /"


def test_udp_layer_by_layer() -> None:
    inner = IP(bytes(IP(src=CLIENT, dst=VIP) / UDP(sport=5353, dport=53) / b"query"))
    _, after = through(INBOUND / inner)
    outer = Ether(after)[IP]
    assert (outer.proto, outer.chksum) == (4, right_checksum(outer))
    assert (outer.payload[UDP].sport, outer.payload[UDP].dport) == (5353, 53)
    assert bytes(outer.payload) == a_hop_on(inner)


def test_padding_stays_behind_the_packet() -> None:
    """A frame of 60 bytes holds a packet of 40: the outer length is that of the packets, not of the frame."""
    inner = IP(bytes(IP(src=CLIENT, dst=VIP) / TCP(sport=40000, dport=80)))
    _, after = through(INBOUND / inner / (b"\0" * 6))
    assert Ether(after)[IP].len == 60
    assert len(after) == 80


def test_checksum_at_the_ends_of_its_range() -> None:
    """Identifications that carry the sum over 0xFFFF, and up to a checksum of zero."""
    machine = Machine.make(1024)
    machine.install_mux([Service(Craft().destination, 6, 80, (0,))], [Backend(bytes([10, 1, 0, 9]))])
    batch = Frames([Craft(identification=identification).frame() for identification in range(0, 65536, 13)])
    machine.worker.forward(batch, 1)
    assert {plain_packet.sum16(after[14:34]) for _, _, after in batch.results()} == {0xFFFF}


@pytest.mark.parametrize(("mtu", "verdict"), [(1060, Verdict.FORWARDED), (1059, Verdict.TOO_BIG)])
def test_the_mtu_holds_for_the_packet_with_its_outer_header(mtu: int, verdict: Verdict) -> None:
    frame = INBOUND / IP(src=CLIENT, dst=VIP) / TCP(sport=40000, dport=80) / bytes(1000)
    assert through(frame, mtu=mtu)[0] == verdict


def test_a_super_frame_is_counted_and_not_sent() -> None:
    frame = Ether(bytes(INBOUND / IP(src=CLIENT, dst=VIP) / TCP(sport=40000, dport=80) / bytes(60000)))
    assert through(frame) == (Verdict.TOO_BIG, bytes(frame))


def test_without_a_mac_address_the_frame_stays_unchanged() -> None:
    frame = Ether(bytes(INBOUND / IP(src=CLIENT, dst=VIP) / TCP(sport=40000, dport=80)))
    machine = Machine.make(16)
    machine.install_mux([Service(Craft().destination, 6, 80, (0,))], [Backend(bytes(4), bytes(6))])
    batch = Frames([bytes(frame)])
    machine.worker.forward(batch, 1)
    assert batch.results() == [(Verdict.NO_NEIGHBOUR, 0, bytes(frame))]


INNER4 = IP(bytes(IP(src=CLIENT, dst=VIP, tos=0xBA, id=0xBEEF, ttl=7) / TCP(sport=40000, dport=80) / b"GET /"))
INNER6 = IPv6(bytes(IPv6(src=CLIENT6, dst=VIP6, tc=0xBA, fl=0x12345, hlim=7) / TCP(sport=40000, dport=80) / b"GET /"))
OVER4 = {"remote": ip_address("10.1.0.9").packed}
OVER6 = {"remote": ip_address(HOST6).packed, "local": ip_address(MUX6).packed}
SIZES = {"ipip": 0, "gue1": 8, "gue0": 12, "gre": 4, "geneve": 16}


def inside(kind: str, payload: Packet, inner: Packet) -> bytes:
    """What the tunnel's own header holds, after that header has been looked at."""
    data, ethernet_type = bytes(payload), 0x0800 if IP in inner else 0x86DD
    if kind == "gre":
        shim = GRE(data)
        assert (shim.version, shim.chksum_present, shim.proto) == (0, 0, ethernet_type)
        return bytes(shim.payload)
    if kind == "ipip":
        return data
    head = UDP(data)
    assert (head.dport, head.len, head.chksum) == (6081 if kind == "geneve" else 6080, len(data), 0)
    assert head.sport >= 0xC000
    if kind == "geneve":
        shim = GENEVE(data[8:])
        assert (shim.version, shim.optionlen, shim.vni, shim.proto) == (0, 0, 0, ethernet_type)
        return bytes(shim.payload)
    if kind == "gue0":
        assert data[8:12] == bytes([0, 4 if IP in inner else 41, 0, 0])
        return data[12:]
    return data[8:]


@pytest.mark.parametrize("inner", [INNER4, INNER6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("over", [OVER4, OVER6], ids=["in IPv4", "in IPv6"])
@pytest.mark.parametrize("kind", SIZES)
def test_every_encapsulation_layer_by_layer(kind: str, over: dict[str, bytes], inner: Packet) -> None:
    """RFC 2003, 2473, 4213, 2784, 8926, 6040 and draft-ietf-intarea-gue."""
    verdict, after = through(INBOUND / inner, kind=kind, **over)
    assert verdict == Verdict.FORWARDED
    sent = Ether(after)
    assert (sent.src, sent.dst) == ("02:11:22:33:44:55", "02:aa:bb:cc:dd:ee")
    outer = sent.payload
    protocol = {"ipip": 4 if IP in inner else 41, "gre": 47}.get(kind, 17)
    length = len(bytes(inner)) + SIZES[kind]
    if over is OVER4:
        assert (sent.type, outer.src, outer.dst) == (0x0800, "10.0.0.1", "10.1.0.9")
        assert (outer.proto, outer.ttl) == (protocol, 64)
        assert (outer.tos, outer.len, outer.frag) == (0xBA, 20 + length, 0)
        assert (outer.id, outer.flags) == ((0xBEEF, "") if IP in inner else (0, "DF"))
        assert outer.chksum == right_checksum(outer)
    else:
        assert (sent.type, outer.src, outer.dst, outer.nh, outer.hlim) == (0x86DD, MUX6, HOST6, protocol, 64)
        assert (outer.tc, outer.plen) == (0xBA, length)
        assert IP in inner or outer.fl == 0x12345
    assert inside(kind, outer.payload, inner) == a_hop_on(inner)


@pytest.mark.parametrize("inner", [INNER4, INNER6], ids=["IPv4", "IPv6"])
def test_direct_rewrites_only_the_mac_addresses(inner: Packet) -> None:
    verdict, after = through(INBOUND / inner, kind="direct")
    assert verdict == Verdict.FORWARDED
    sent = Ether(after)
    assert (sent.src, sent.dst) == ("02:11:22:33:44:55", "02:aa:bb:cc:dd:ee")
    assert bytes(sent.payload) == a_hop_on(inner)


def outer_headers(count: int, **backend: object) -> list[Packet]:
    """Return the outer headers of a client's connections."""
    ports = range(1, count + 1)
    packets = [INBOUND / IP(src=CLIENT, dst=VIP) / TCP(sport=port, dport=80) for port in ports]
    return [Ether(through(packet, **backend)[1]).payload for packet in packets]


def test_the_source_port_of_gue_spreads_flows() -> None:
    ports = {outer[UDP].sport for outer in outer_headers(64, kind="gue1")}
    assert len(ports) > 50
    assert len({port % 4 for port in ports}) == 4


def test_the_flow_label_spreads_ipv4_flows_in_ipv6() -> None:
    """RFC 6438."""
    assert len({outer.fl for outer in outer_headers(64, **OVER6)}) > 50


def test_the_source_address_spreads_flows_if_configured() -> None:
    outer = outer_headers(64, spread=True, local=bytes([172, 16, 0, 0]))
    assert len({one.src for one in outer}) > 50
    assert all(one.src.startswith("172.16.") and one.chksum == right_checksum(one) for one in outer)
    assert len({one.src for one in outer_headers(4)}) == 1


@pytest.mark.parametrize("kind", [*SIZES, "direct"])
@pytest.mark.parametrize("over", [OVER4, OVER6], ids=["in IPv4", "in IPv6"])
def test_the_mtu_counts_every_header(kind: str, over: dict[str, bytes]) -> None:
    grows = 0 if kind == "direct" else SIZES[kind] + (20 if over is OVER4 else 40)
    frame = INBOUND / IP(src=CLIENT, dst=VIP) / TCP(sport=40000, dport=80) / bytes(1000)
    assert through(frame, kind=kind, mtu=1040 + grows, **over)[0] == Verdict.FORWARDED
    assert through(frame, kind=kind, mtu=1039 + grows, **over) == (Verdict.TOO_BIG, bytes(frame))
