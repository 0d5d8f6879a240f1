"""The AF_PACKET driver on a real wire."""

import ctypes
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Dot1Q, Ether

from lbmux.datapath.frame import CUT, UNFINISHED_CHECKSUM
from lbmux.datapath.verdicts import Verdict
from lbmux.errors import SetupError
from lbmux.frames import packet_ring
from lbmux.frames.batch import HEADROOM_BYTES, Batch
from lbmux.frames.packet_ring import PacketRing
from lbmux.frames.socket_filters import NOTHING, tunnels
from tests.frames.pair import Pair

UDP_SEGMENT = 103
MARK = b"\x88\xb5"
"""The Ethernet type for experiments: what a test's own frames have, and no other."""


def frame(number: int, length: int = 60) -> bytes:
    return bytes(12) + MARK + struct.pack("!H", number) + bytes(length - 16)


def number(data: bytes) -> int:
    assert data[12:14] == MARK
    return int(struct.unpack_from("!H", data, 14)[0])


@pytest.fixture
def wire(pair: Pair) -> Iterator[socket.socket]:
    with pair.wire("a") as wire:
        yield wire


@pytest.fixture
def ring(pair: Pair) -> Iterator[PacketRing]:
    with pair.inside("b", lambda: PacketRing("b0", frames=64)) as ring:
        yield ring


def readable(ring: PacketRing, milliseconds: int) -> bool:
    poll = select.poll()
    poll.register(ring.fileno(), select.POLLIN)
    return bool(poll.poll(milliseconds))


def whole(batch: Batch, index: int) -> bytes:
    return ctypes.string_at(int(batch.address[index]), int(batch.length[index]))


def arrived(wire: socket.socket, kind: bytes = MARK) -> bytes:
    """The next frame of a type on the wire."""
    while (data := wire.recv(65536))[12:14] != kind:
        pass
    return data


def ours(data: bytes) -> bool:
    return data[12:14] == MARK


def receive_one(ring: PacketRing, matches: Callable[[bytes], bool] = ours) -> tuple[Batch, int]:
    """A batch that has a frame that matches, and the frame's index."""
    batch = Batch()
    while readable(ring, 2000):
        for index in range(ring.receive(batch)):
            if matches(whole(batch, index)):
                return batch, index
        ring.release(batch)
    raise AssertionError("no such frame came")


def batch_of(frames: list[bytes]) -> tuple[Batch, np.ndarray]:
    """The frames, and the memory that they are in."""
    batch, memory = Batch(), np.zeros((len(frames), 2048), np.uint8)
    for index, data in enumerate(frames):
        memory[index, : len(data)] = np.frombuffer(data, np.uint8)
        batch.address[index], batch.length[index] = memory[index].ctypes.data, len(data)
    batch.count = len(frames)
    return batch, memory


@pytest.mark.root
@pytest.mark.parametrize(("mtu", "length"), [(1500, 60), (1500, 1514), (9000, 9014)])
def test_a_frame_up_to_the_mtu_is_read_whole(pair: Pair, mtu: int, length: int) -> None:
    for node in ("a", "b"):
        pair.set_link(node, mtu=mtu)
    with pair.inside("b", lambda: PacketRing("b0", frames=64)) as ring, pair.wire("a") as wire:
        wire.send(frame(7, length))
        batch, index = receive_one(ring)
        assert whole(batch, index) == frame(7, length)
        assert (batch.flags[index], batch.interface[index]) == (0, ring.index)


@pytest.mark.root
def test_frames_stay_in_order_while_the_ring_goes_round(wire: socket.socket, ring: PacketRing) -> None:
    batch, seen = Batch(capacity=7), []
    for first in range(0, 600, 20):
        for value in range(first, first + 20):
            wire.send(frame(value))
        while readable(ring, 50) and len(seen) < first + 20:
            assert ring.receive(batch) <= batch.capacity
            seen += [number(data) for i in range(batch.count) if ours(data := whole(batch, i))]
            ring.release(batch)
    assert seen == list(range(600))
    assert ring.dropped() == 0


@pytest.mark.root
def test_each_frame_of_a_batch_has_its_own_time(wire: socket.socket, ring: PacketRing) -> None:
    """The ring wraps around within the batch."""
    batch, places = Batch(), ring.frames
    for value in range(places - 3):
        wire.send(frame(value))
        receive_one(ring)
        ring.release(batch)
    sent_ns = list[int]()
    for value in range(6):
        wire.send(frame(value))
        sent_ns.append(time.time_ns())
        time.sleep(0.005)
    ring.receive(batch)
    times = [
        time_ns
        for index, (time_ns, length) in enumerate(ring.arrivals(batch.count))
        if ours(whole(batch, index)) and length == 60
    ]
    assert len(times) == 6 and times == sorted(times)
    # A frame is in the ring before send() returns; two frames 5 ms apart must differ in time.
    assert all(0 <= sent - came < 4_000_000 for sent, came in zip(sent_ns, times, strict=True))
    ring.release(batch)


@pytest.mark.root
def test_a_frame_grows_into_its_headroom_and_is_sent_from_there(wire: socket.socket, ring: PacketRing) -> None:
    wire.send(frame(5))
    batch, index = receive_one(ring)
    grown = b"\x02" * 12 + MARK + struct.pack("!H", 9) + b"o" * (HEADROOM_BYTES - 16) + whole(batch, index)
    batch.address[index] -= HEADROOM_BYTES
    batch.length[index] += HEADROOM_BYTES
    ctypes.memmove(int(batch.address[index]), grown, len(grown))
    batch.verdict[: batch.count] = Verdict.NOT_IP
    batch.verdict[index] = Verdict.FORWARDED
    assert ring.send(batch) == 1
    ring.release(batch)
    while number(data := arrived(wire)) != 9:
        pass
    assert data == grown


@pytest.mark.root
def test_only_frames_with_a_verdict_that_sends_leave(wire: socket.socket, ring: PacketRing) -> None:
    batch, _memory = batch_of([frame(value) for value in range(5)])
    verdicts = [Verdict.FORWARDED, Verdict.NOT_VIP, Verdict.REPLIED, Verdict.TOO_BIG, Verdict.FORWARDED]
    batch.verdict[:5] = verdicts
    assert ring.send(batch) == 3
    assert [number(arrived(wire)) for _ in range(3)] == [0, 2, 4]
    assert batch.verdict[:5].tolist() == verdicts
    wire.settimeout(0.1)
    with pytest.raises(TimeoutError):
        arrived(wire)


@pytest.mark.root
def test_sent_frames_are_not_read_back(wire: socket.socket, ring: PacketRing) -> None:
    batch, _memory = batch_of([frame(1)])
    assert ring.send(batch) == 1
    assert number(arrived(wire)) == 1
    wire.send(frame(2))
    batch, index = receive_one(ring)
    assert number(whole(batch, index)) == 2


@pytest.mark.root
def test_an_unfinished_checksum_is_marked(pair: Pair, ring: PacketRing) -> None:
    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"half done", ("10.9.0.2", 4000))

    pair.inside("a", send)
    batch, index = receive_one(ring, lambda data: data.endswith(b"half done"))
    assert batch.flags[index] == UNFINISHED_CHECKSUM
    said = IP(whole(batch, index)[14:])
    right = IP(bytes(IP(src=said.src, dst=said.dst) / UDP(sport=said.sport, dport=4000) / b"half done"))
    assert said[UDP].chksum != right[UDP].chksum


@pytest.mark.root
def test_a_frame_larger_than_a_ring_slot_is_read_whole(pair: Pair, wire: socket.socket, ring: PacketRing) -> None:
    for node in ("a", "b"):
        pair.set_link(node, mtu=9000)
    wire.send(frame(3, 8000))
    batch, index = receive_one(ring)
    assert (batch.flags[index], whole(batch, index)) == (0, frame(3, 8000))
    assert ring.arrivals(batch.count)[index][1] == 8000


@pytest.mark.root
def test_an_oversized_frame_that_is_not_read_in_time_is_marked_as_truncated(
    pair: Pair, wire: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packet_ring, "RECEIVE_BUFFER_BYTES", 2304)  # room for one
    with pair.inside("b", lambda: PacketRing("b0", frames=64)) as ring:
        for node in ("a", "b"):
            pair.set_link(node, mtu=9000)
        for turn in (1, 2, 3):
            wire.send(frame(turn, 8000))
        batch, marks = Batch(), dict[int, tuple[int, int]]()
        while len(marks) < 3 and readable(ring, 2000):
            for index in range(ring.receive(batch)):
                if ours(whole(batch, index)):
                    marks[number(whole(batch, index))] = (int(batch.flags[index]), int(batch.length[index]))
                    assert ring.arrivals(batch.count)[index][1] == 8000, "as it was on the wire"
            ring.release(batch)
    assert marks[1] == (0, 8000)
    assert marks[3][0] == CUT
    assert 1514 <= marks[3][1] < 8000


def collect(ring: PacketRing, wanted: Callable[[list[bytes]], bool]) -> list[bytes]:
    """Return frames in their order until the expected number has arrived, in batches that are often full."""
    batch, frames = Batch(16), list[bytes]()
    while not wanted(frames):
        assert readable(ring, 2000), "a super-frame that is not cut to its end keeps the descriptor readable"
        frames += [whole(batch, index) for index in range(ring.receive(batch))]
        ring.release(batch)
    return frames


def checked(frame: bytes) -> IP:
    """The packet of a frame that was cut, whose checksums are right."""
    said = IP(frame[14:])
    again = IP(frame[14:])
    del again.chksum, again[UDP if UDP in again else TCP].chksum
    assert bytes(IP(bytes(again))) == bytes(said)
    return said


@pytest.mark.root
@pytest.mark.parametrize("size", [10, 700, 1400])
def test_a_udp_super_frame_is_segmented_into_datagrams(pair: Pair, ring: PacketRing, size: int) -> None:
    """One that fits a slot of the ring is segmented too; the last datagram is shorter."""
    payload = bytes(range(256)) * ((40 * size + 5) // 256 + 1)
    payload = payload[: 40 * size + 5]

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, size)
            sock.sendto(payload, ("10.9.0.2", 4000))

    pair.inside("a", send)

    def datagrams(frames: list[bytes]) -> list[bytes]:
        return [bytes(checked(data)[UDP].payload) for data in frames if data[12:14] == b"\x08\0" and data[23] == 17]

    pieces = datagrams(collect(ring, lambda frames: len(b"".join(datagrams(frames))) >= len(payload)))
    assert b"".join(pieces) == payload
    assert [len(piece) for piece in pieces] == [size] * 40 + [5]
    assert ring.super_frames > 0


@pytest.mark.root
def test_tcp_super_frames_are_segmented(pair: Pair, ring: PacketRing) -> None:
    payload = bytes(range(251)) * 1000

    def upload() -> None:
        with socket.create_connection(("10.9.0.2", 80)) as client:
            client.sendall(payload)

    with pair.inside("b", lambda: socket.create_server(("10.9.0.2", 80))) as server:
        sender = threading.Thread(target=pair.inside, args=("a", upload))
        sender.start()
        with server.accept()[0] as accepted:
            while accepted.recv(1 << 20):
                pass
        sender.join()

    def segments(frames: list[bytes]) -> dict[int, bytes]:
        """Return the segments by sequence number."""
        packets = [IP(data[14:]) for data in frames if data[12:14] == b"\x08\0" and data[23] == 6]
        return {packet[TCP].seq: bytes(packet[TCP].payload) for packet in packets if len(packet[TCP].payload)}

    pieces = segments(collect(ring, lambda frames: len(b"".join(segments(frames).values())) >= len(payload)))
    assert b"".join(pieces[sequence] for sequence in sorted(pieces)) == payload
    assert max(map(len, pieces.values())) <= 1448
    assert ring.super_frames > 0


@pytest.mark.root
@pytest.mark.parametrize("tag_type", [0x8100, 0x88A8])
def test_a_vlan_tag_that_the_kernel_took_off_is_put_back(wire: socket.socket, ring: PacketRing, tag_type: int) -> None:
    link = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02", type=tag_type)
    sent = bytes(link / Dot1Q(vlan=7, prio=3) / IP(dst="192.0.2.1") / TCP() / b"tagged")
    wire.send(sent)
    batch, index = receive_one(ring, lambda data: data.endswith(b"tagged"))
    assert whole(batch, index) == sent
    assert ring.arrivals(batch.count)[index][1] == len(sent)


@pytest.mark.root
def test_frames_that_find_the_ring_full_are_counted(wire: socket.socket, ring: PacketRing) -> None:
    before, places = ring.dropped(), ring.frames
    for value in range(places + 50):
        wire.send(frame(value))
    lost = ring.dropped() - before
    assert lost >= 50
    assert ring.dropped() - before == lost, "the kernel's counter is cleared by reading; ours is not"
    batch, kept = Batch(), 0
    while ring.receive(batch):
        kept += sum(ours(whole(batch, index)) for index in range(batch.count))
        ring.release(batch)
    assert kept <= places, "a batch that is larger than the ring goes round it once only"
    wire.send(frame(9999))
    batch, index = receive_one(ring)
    assert number(whole(batch, index)) == 9999


@pytest.mark.root
def test_an_agents_ring_reads_frames_that_may_be_tunnelled_to_it(pair: Pair, wire: socket.socket) -> None:
    inner, inner6 = IP(dst="192.0.2.1") / TCP() / b"x", IPv6(dst="2001:db8::1") / TCP() / b"x"
    outer, outer6 = IP(dst="10.9.0.2"), IPv6(dst="2001:db8::2")
    read = [
        outer / inner, outer / inner6, outer6 / inner, outer6 / inner6, outer / GRE() / inner, outer6 / GRE() / inner6,
        outer / UDP(dport=6080) / inner, outer6 / UDP(dport=6081) / inner,
        IP(dst="10.9.0.2", options=IPOption(b"\x01" * 4)) / UDP(dport=6081) / inner,
    ]  # fmt: skip
    others = [inner, inner6, outer / UDP(dport=53) / inner, outer6 / UDP(dport=6082) / inner, outer / ICMP()]
    with pair.inside("b", lambda: PacketRing("b0", frames=64, only=NOTHING)) as ring:
        wire.send(bytes(Ether(dst="02:00:00:00:00:01") / read[0]))
        assert not readable(ring, 50)
        ring.restrict(tunnels(6080, 6081))
        ether = Ether(dst="02:00:00:00:00:01")
        for packet in (*others, *read):
            wire.send(bytes(ether / packet))
        batch = Batch()
        assert readable(ring, 2000)
        assert ring.receive(batch) == len(read)
        assert [whole(batch, at)[14:] for at in range(len(read))] == [bytes(packet) for packet in read]


@pytest.mark.root
def test_an_interface_that_goes_down_is_counted_once_and_comes_back(
    pair: Pair, wire: socket.socket, ring: PacketRing, caplog: pytest.LogCaptureFixture
) -> None:
    batch = Batch()
    pair.set_link("b", state="down")
    while readable(ring, 50):
        ring.receive(batch)
        ring.release(batch)
        assert ring.outages == 1, "or an event loop would spin"
    assert ring.outages == 1
    assert caplog.messages == ["interface b0: network is down"]
    pair.set_link("b", state="up")
    wire.send(frame(4))
    batch, index = receive_one(ring)
    assert number(whole(batch, index)) == 4


@pytest.mark.root
def test_an_interface_that_goes_away_crashes_nothing(pair: Pair, ring: PacketRing) -> None:
    batch, _memory = batch_of([frame(value) for value in range(3)])
    batch.verdict[1] = Verdict.NOT_VIP
    pair.netlink("b", lambda ip, index: ip.link("del", index=index))
    assert ring.send(batch) == 0
    assert batch.verdict[:3].tolist() == [Verdict.UNSENT, Verdict.NOT_VIP, Verdict.UNSENT]
    assert ring.unsent == 2
    while readable(ring, 50):
        ring.receive(batch)
        ring.release(batch)
    assert ring.outages == 1


@pytest.mark.root
def test_a_frame_that_the_interface_refuses_does_not_hold_up_the_next(wire: socket.socket, ring: PacketRing) -> None:
    batch, _memory = batch_of([frame(0), frame(1, 1600), frame(2)])
    assert ring.send(batch) == 2
    assert [number(arrived(wire)) for _ in range(2)] == [0, 2]
    assert batch.verdict[:3].tolist() == [Verdict.FORWARDED, Verdict.UNSENT, Verdict.FORWARDED]
    assert ring.unsent == 1


@pytest.mark.root
def test_an_unknown_interface_is_named() -> None:
    with pytest.raises(SetupError, match=r"^interface nowhere0: not found [(]`ip link` lists them[)]$"):
        PacketRing("nowhere0")


@pytest.mark.root
def test_without_the_capability_it_says_what_is_needed() -> None:
    script = (
        "import os\n"
        "from lbmux.errors import SetupError\n"
        "from lbmux.frames.packet_ring import PacketRing\n"
        "os.setuid(65534)\n"
        "try: PacketRing('lo')\n"
        "except SetupError as error: print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "packet socket: not permitted (needs CAP_NET_RAW: run as root)\n", ran.stderr
