"""Super-frames of every kind, cut, against frames that scapy builds one by one."""

import ctypes
import itertools

import numpy as np
import pytest
from scapy.layers.inet import GRE, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from lbmux.codegen.compiled import compiled
from lbmux.datapath.memory import at_address, int64
from lbmux.frames.super_frames import (
    ARENA_BYTES,
    NEEDS_CHECKSUM,
    SUPER,
    TCP_OVER_IPV4,
    TCP_OVER_IPV6,
    UDP_DATAGRAMS,
    cut,
    open_super,
    super_row,
)

LINK = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
V4 = IP(src="198.51.100.2", dst="192.0.2.1", id=0xFFFE, flags="DF", tos=0x02)
V6 = IPv6(src="2001:db8::2", dst="2001:db8:192::1", fl=0x12345)
OUTER4, OUTER6 = IP(src="10.0.0.1", dst="10.0.0.2", id=7), IPv6(src="2001:db8:1::1", dst="2001:db8:1::2")
GUE4 = UDP(sport=50000, dport=6080, chksum=0)
CWR, PSH, FIN = 0x80, 0x08, 0x01


@compiled
def _open(state, start, length, flags, kind, size, checksum_start):  # type: ignore[no-untyped-def]
    return open_super(super_row(at_address(state), 0), start, length, flags, kind, size, checksum_start)


@compiled
def _cut(state, arena):  # type: ignore[no-untyped-def]
    start, length = cut(super_row(at_address(state), 0), arena)
    return start, int64(length)


def pieces(frame: bytes, kind: int, size: int, transport: int, flags: int = NEEDS_CHECKSUM) -> list[bytes] | None:
    """Return the segments of a super-frame, or None if it cannot be segmented."""
    state, arena = np.zeros(1, SUPER), np.zeros(ARENA_BYTES, np.uint8)
    memory = np.frombuffer(frame + bytes(64), np.uint8).copy()
    at = np.uint64(state.ctypes.data)
    if not _open(at, np.uint64(memory.ctypes.data), len(frame), flags, kind, size, transport):
        return None
    segments = []
    while state["size"][0]:
        start, length = _cut(at, np.uint64(arena.ctypes.data))
        segments.append(ctypes.string_at(int(start), length))
    return segments


def transport_of(packet: Packet) -> int:
    """The innermost transport header's place."""
    last = packet[TCP] if TCP in packet else packet.getlayer(UDP, 2) or packet[UDP]
    return len(packet) - len(last)


def super_frame(packet: Packet) -> bytes:
    """Return a super-frame as the kernel has it: the transport's checksum is not finished."""
    made = bytearray(bytes(packet))
    offset = transport_of(packet) + (16 if TCP in packet else 6)
    made[offset : offset + 2] = b"\x12\x34"
    return bytes(made)


def one(packet: Packet, payload: bytes, number: int, size: int, count: int) -> bytes:
    """The frame ``number`` of ``count``, as its sender would have built it without offload."""
    made = packet.copy()
    last = made[TCP] if TCP in made else made.getlayer(UDP, 2) or made[UDP]
    last.remove_payload()
    made = made / Raw(payload[number * size : (number + 1) * size])
    layer = made
    while layer := layer.payload:
        if isinstance(layer, IP):
            layer.id = (layer.id + number) & 0xFFFF
        if isinstance(layer, TCP):
            layer.seq = (layer.seq + number * size) & 0xFFFFFFFF
            layer.flags = int(layer.flags) & ~(CWR if number else 0) & ~(0 if number == count - 1 else PSH | FIN)
    return bytes(made)


@pytest.mark.slow
@pytest.mark.parametrize(
    "packet",
    [V4 / TCP(seq=0xFFFFFF00, flags=CWR | PSH | FIN | 0x10, options=[("Timestamp", (1, 2))]),
     V6 / TCP(seq=1, flags="PA"), V4 / UDP(dport=443), V6 / UDP(dport=443), V6 / IPv6ExtHdrDestOpt() / TCP(flags="A"),
     OUTER4 / V4 / TCP(flags="PA"), OUTER6 / V6 / TCP(flags="PA"), OUTER4 / V6 / TCP(flags="A"), OUTER6 / V4 / UDP(),
     OUTER4 / GRE() / V4 / TCP(flags="PA"), OUTER4 / GUE4 / V4 / TCP(flags="PA"), OUTER4 / GUE4 / V6 / UDP(dport=9)],
)  # fmt: skip
def test_each_piece_is_what_the_sender_would_have_sent(packet: Packet) -> None:
    kind = UDP_DATAGRAMS if TCP not in packet else TCP_OVER_IPV6 if IPv6 in packet else TCP_OVER_IPV4
    for size, tags in itertools.product([100, 1000, 3000], [0, 1, 2]):
        payload = bytes(np.random.default_rng(size).integers(0, 256, 3 * size + size // 2, np.uint8))
        link = LINK
        for tag in range(tags):
            link = link / Dot1Q(vlan=5 + tag)
        whole = link / packet / Raw(payload)
        made = Ether(bytes(whole))
        segments = pieces(super_frame(whole), kind, size, transport_of(whole))
        assert segments is not None, (size, tags)
        wanted = [one(link / packet, payload, number, size, 4).hex() for number in range(4)]
        assert [data.hex() for data in segments] == wanted, (size, tags)
        assert made[Ether].src == LINK.src


def test_a_datagram_without_a_checksum_keeps_none() -> None:
    frame = bytes(LINK / V4 / UDP(chksum=0) / Raw(bytes(250)))
    segments = pieces(frame, UDP_DATAGRAMS, 100, 34)
    assert segments is not None
    assert [UDP(data[34:]).chksum for data in segments] == [0, 0, 0]


def test_without_a_hint_the_transport_header_follows_the_ip_header() -> None:
    """A network card that joined frames (LRO) gives no hint."""
    frame = bytes(LINK / V6 / TCP(flags="A") / Raw(bytes(250)))
    segments = pieces(frame, TCP_OVER_IPV6, 100, 0, flags=0)
    assert segments == pieces(frame, TCP_OVER_IPV6, 100, 54)


@pytest.mark.parametrize(
    ("frame", "size", "transport"),
    [
        (LINK / V4 / TCP() / Raw(bytes(200)), 0, 34),
        (LINK / V4 / TCP(), 100, 34),
        (LINK / V4 / TCP() / Raw(bytes(200)), 100, 20),
        (LINK / V4 / TCP() / Raw(bytes(200)), 100, 60),
        (LINK / V4 / TCP() / Raw(bytes(200)), 100, 60000),
        (Ether(type=0x88B5) / Raw(bytes(200)), 100, 34),
        (LINK / Raw(b"\x45"), 100, 34),
    ],
    ids=["no size", "no payload", "before the IP header", "no IP header before it", "behind the end", "no IP", "short"],
)
def test_frames_that_cannot_be_segmented(frame: Packet, size: int, transport: int) -> None:
    assert pieces(bytes(frame), TCP_OVER_IPV4, size, transport) is None
