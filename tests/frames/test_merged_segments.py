"""Which segments are merged, and that cutting the merged packet gives the segments again."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from lbmux.codegen.compiled import compiled
from lbmux.datapath.frame import CUT, UNFINISHED_CHECKSUM
from lbmux.datapath.memory import at_address, int64
from lbmux.datapath.verdicts import PASSES, Verdict
from lbmux.frames.batch import Batch
from lbmux.frames.merged_segments import MOST_BYTES, MOST_SEGMENTS, run_of, write_headers, write_vnet
from lbmux.frames.super_frames import NEEDS_CHECKSUM, TCP_OVER_IPV4, TCP_OVER_IPV6, VNET, vnet_row
from lbmux.wire.header_layouts import ETHERNET_BYTES
from tests.frames.test_super_frames import pieces

V4 = IP(src="198.51.100.2", dst="192.0.2.1", flags="DF", tos=0x02)
V6 = IPv6(src="2001:db8::2", dst="2001:db8:192::1", fl=0x12345)
STAMPS = [("NOP", None), ("NOP", None), ("Timestamp", (7, 8))]
SIZE = 100


@compiled
def _run(address, length, flags, verdict, count):  # type: ignore[no-untyped-def]
    return run_of(address, length, flags, verdict, 0, count, 0, PASSES)


@compiled
def _headers(into, vnet, address, length, run, payload, total):  # type: ignore[no-untyped-def]
    write_headers(at_address(into), at_address(address[0]), at_address(address[run - 1]), payload, total)
    write_vnet(vnet_row(at_address(vnet), 0), at_address(into), payload, int64(length[0]) - payload)


class Segments:
    """A batch of frames."""

    def __init__(self, frames: Sequence[bytes]) -> None:
        self.batch, self._memory = Batch(max(len(frames), 1)), np.zeros((len(frames), 2048), np.uint8)
        self.batch.count = len(frames)
        for index, frame in enumerate(frames):
            self._memory[index, : len(frame)] = np.frombuffer(frame, np.uint8)
            self.batch.address[index], self.batch.length[index] = self._memory[index].ctypes.data, len(frame)
        self.batch.verdict[:] = Verdict.DELIVERED

    def run(self) -> tuple[int, int]:
        """Return (how many frames from the first on make one packet, where their data begin)."""
        batch = self.batch
        run, payload = _run(batch.address, batch.length, batch.flags, batch.verdict, batch.count)
        return int(run), int(payload)

    def merged(self) -> tuple[np.void, bytes]:
        """Return the virtio_net_hdr and the frame that the first run makes."""
        (run, payload), batch = self.run(), self.batch
        frames = [self._memory[index, : int(batch.length[index])].tobytes() for index in range(run)]
        data = b"".join(frame[payload:] for frame in frames)
        header, vnet = np.zeros(256, np.uint8), np.zeros(1, VNET)
        _headers(
            np.uint64(header.ctypes.data), np.uint64(vnet.ctypes.data), batch.address, batch.length, run, payload,
            payload + len(data),
        )  # fmt: skip
        return vnet[0], header[:payload].tobytes() + data


def segment(number: int, size: int = SIZE, ip: Packet = V4, flags: str = "A", **fields: object) -> bytes:
    """Build the segment that begins after ``number`` segments of SIZE bytes."""
    fields = {"sport": 40000, "dport": 80, "seq": 0xFFFFFF00 + number * SIZE & 0xFFFFFFFF, "ack": 9} | fields
    ip = ip.copy()
    if ip.version == 4:
        ip.id = 20 + number
    return bytes(
        Ether(type=0x0800 if ip.version == 4 else 0x86DD) / ip / TCP(flags=flags, **fields) / Raw(data(number, size))
    )


def data(number: int, size: int) -> bytes:
    return bytes((number * 7 + at) % 251 for at in range(size))


CASES: dict[str, tuple[int, Callable[[], list[bytes]]]] = {
    "consecutive": (3, lambda: [segment(0), segment(1), segment(2)]),
    "the last is shorter": (2, lambda: [segment(0), segment(1, 40), segment(2)]),
    "the next is longer": (1, lambda: [segment(0), segment(1, 101)]),
    "a push ends it": (2, lambda: [segment(0), segment(1, flags="PA"), segment(2)]),
    "the first has a push": (1, lambda: [segment(0, flags="PA"), segment(1)]),
    "a gap": (1, lambda: [segment(0), segment(2)]),
    "out of order": (1, lambda: [segment(1), segment(0)]),
    "another client": (1, lambda: [segment(0), segment(1, sport=40001)]),
    "another acknowledgement": (1, lambda: [segment(0), segment(1, ack=10)]),
    "another window": (1, lambda: [segment(0), segment(1, window=99)]),
    "a FIN": (1, lambda: [segment(0), segment(1, flags="FA")]),
    "a SYN first": (1, lambda: [segment(0, flags="S"), segment(1)]),
    "CWR": (1, lambda: [segment(0), segment(1, flags="AC")]),
    "the same options": (2, lambda: [segment(0, options=STAMPS), segment(1, options=STAMPS)]),
    "other options": (
        1,
        lambda: [segment(0, options=STAMPS), segment(1, options=[*STAMPS[:2], ("Timestamp", (7, 9))])],
    ),
    "options and none": (1, lambda: [segment(0, options=STAMPS), segment(1)]),
    "another TTL": (1, lambda: [segment(0), segment(1, ip=_changed(V4, ttl=63))]),
    "congestion experienced": (1, lambda: [segment(0), segment(1, ip=_changed(V4, tos=3))]),
    "may be fragmented": (1, lambda: [segment(0, ip=_changed(V4, flags=0)), segment(1, ip=_changed(V4, flags=0))]),
    "another source": (1, lambda: [segment(0), segment(1, ip=_changed(V4, src="198.51.100.3"))]),
    "a wrong checksum": (1, lambda: [segment(0), segment(1, chksum=1)]),
    "a wrong checksum first": (1, lambda: [segment(0, chksum=1), segment(1)]),
    "a wrong checksum later": (2, lambda: [segment(0), segment(1), segment(2, chksum=1)]),
    "no data": (1, lambda: [segment(0, 0), segment(0)]),
    "padded": (1, lambda: [segment(0) + b"\0", segment(1)]),
    "IPv6": (3, lambda: [segment(number, ip=V6) for number in range(3)]),
    "another flow label": (1, lambda: [segment(0, ip=V6), segment(1, ip=_changed(V6, fl=1))]),
    "both families": (1, lambda: [segment(0, ip=V6), segment(1)]),
    "another Ethernet type": (1, lambda: [segment(n, ip=V6).replace(b"\x86\xdd", b"\x88\xcc", 1) for n in range(2)]),
    "UDP": (1, lambda: [bytes(Ether() / V4 / UDP() / Raw(bytes(30)))] * 2),
    "too short for TCP": (1, lambda: [bytes(Ether() / V4)] * 2),
    "an offset beyond the frame": (1, lambda: [segment(0, 4, dataofs=15), segment(1, 4, dataofs=15)]),
}


def _changed(ip: Packet, **fields: object) -> Packet:
    ip = ip.copy()
    for name, value in fields.items():
        setattr(ip, name, value)
    return ip


@pytest.mark.parametrize("case", CASES)
def test_a_run_of_segments(case: str) -> None:
    expected, frames = CASES[case]
    assert Segments(frames()).run()[0] == expected


def test_a_frame_that_does_not_go_to_the_stack_ends_a_run() -> None:
    segments = Segments([segment(0), segment(1), segment(2)])
    segments.batch.verdict[1] = Verdict.NOT_A_MUX
    assert segments.run()[0] == 1


@pytest.mark.parametrize("flag", [UNFINISHED_CHECKSUM, CUT])
@pytest.mark.parametrize("index", [0, 1])
def test_unfinished_and_cut_frames_stay_alone(flag: int, index: int) -> None:
    segments = Segments([segment(0), segment(1)])
    segments.batch.flags[index] = flag
    assert segments.run()[0] == 1


def test_a_packet_has_at_most_64_kib() -> None:
    frames = [segment(0, 1448), *(segment(0, 1448, seq=0xFFFFFF00 + n * 1448 & 0xFFFFFFFF) for n in range(1, 50))]
    run, payload = Segments(frames).run()
    length = payload - ETHERNET_BYTES + run * 1448
    assert length <= MOST_BYTES < length + 1448


def test_a_packet_has_a_limited_number_of_segments() -> None:
    assert Segments([segment(number) for number in range(MOST_SEGMENTS + 5)]).run()[0] == MOST_SEGMENTS


@pytest.mark.parametrize(("ip", "kind"), [(V4, TCP_OVER_IPV4), (V6, TCP_OVER_IPV6)])
@pytest.mark.parametrize("last", [SIZE, SIZE - 1, 1])
@pytest.mark.parametrize("options", [[], STAMPS])
def test_cutting_the_merged_packet_gives_the_segments_again(
    ip: Packet, kind: int, last: int, options: list[object]
) -> None:
    frames = [segment(number, ip=ip, options=options) for number in range(4)]
    frames.append(segment(4, last, ip=ip, options=options, flags="PA"))
    vnet, frame = Segments(frames).merged()
    transport = int(vnet["checksum_start"]) + ETHERNET_BYTES
    assert (vnet["flags"], vnet["kind"], vnet["size"]) == (NEEDS_CHECKSUM, kind, SIZE)
    assert int(vnet["header_bytes"]) + ETHERNET_BYTES + 4 * SIZE + last == len(frame)
    assert pieces(frame, kind, SIZE, transport) == frames


def test_the_checksum_is_the_pseudo_headers_sum() -> None:
    """The kernel adds the rest: then the packet is as scapy builds it."""
    vnet, frame = Segments([segment(0), segment(1)]).merged()
    start, at = ETHERNET_BYTES + int(vnet["checksum_start"]), ETHERNET_BYTES + int(vnet["checksum_start"]) + 16
    words = np.frombuffer(frame[start:], ">u2").astype(int)
    total = int(words.sum())
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    finished = frame[:at] + (~total & 0xFFFF).to_bytes(2, "big") + frame[at + 2 :]
    expected = Ether(finished)
    del expected[TCP].chksum, expected[IP].chksum, expected[IP].len
    assert bytes(expected) == finished
