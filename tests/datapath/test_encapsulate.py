"""What a mux sends, dissected layer by layer with scapy (RFC 2003)."""

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from lbmux.datapath.verdicts import Verdict

from . import plain_packet
from .craft import Craft
from .harness import Frames, Machine
from .plain_mux import Backend, Service

CLIENT, VIP = "198.51.100.7", "192.0.2.1"
INBOUND = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")


def through(packet: Ether, **backend: object) -> tuple[Verdict, bytes]:
    """What becomes of a frame at a mux with one backend."""
    host = Backend(bytes([10, 1, 0, 9]), bytes.fromhex("02aabbccddee"), bytes.fromhex("021122334455"), **backend)  # type: ignore[arg-type]
    machine = Machine.make(16)
    vip = bytes(map(int, VIP.split(".")))
    machine.install_mux([Service(vip, 6, 80, (0,)), Service(vip, 17, 53, (0,))], [host])
    batch = Frames([bytes(packet)])
    machine.worker.forward(batch, 1)
    ((verdict, _, after),) = batch.results()
    return verdict, after


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
    assert bytes(outer.payload) == bytes(inner)
    assert outer.payload[TCP][Raw].load == b"GET /"


def test_udp_layer_by_layer() -> None:
    inner = IP(bytes(IP(src=CLIENT, dst=VIP) / UDP(sport=5353, dport=53) / b"query"))
    _, after = through(INBOUND / inner)
    outer = Ether(after)[IP]
    assert (outer.proto, outer.chksum) == (4, right_checksum(outer))
    assert (outer.payload[UDP].sport, outer.payload[UDP].dport) == (5353, 53)
    assert bytes(outer.payload) == bytes(inner)


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


def test_without_a_mac_address_the_frame_stays_as_it_is() -> None:
    frame = Ether(bytes(INBOUND / IP(src=CLIENT, dst=VIP) / TCP(sport=40000, dport=80)))
    machine = Machine.make(16)
    machine.install_mux([Service(Craft().destination, 6, 80, (0,))], [Backend(bytes(4), bytes(6))])
    batch = Frames([bytes(frame)])
    machine.worker.forward(batch, 1)
    assert batch.results() == [(Verdict.NO_NEIGHBOUR, 0, bytes(frame))]
