"""The TUN driver against the real stack: packets in, packets out, and nothing left behind."""

import ctypes
import select
import socket
from collections.abc import Iterator

import numpy as np
import pytest
from pyroute2 import IPRoute
from scapy.layers.inet import IP, TCP, UDP

from lbmux.datapath.verdicts import PASSES, Verdict
from lbmux.errors import SetupError
from lbmux.frames.batch import HEADROOM_BYTES, Batch
from lbmux.frames.tun import Tun
from lbmux.wire.header_layouts import ETHERNET_BYTES
from lbmux.wire.numbers import ETHERTYPE_IPV4
from tests.frames.pair import Pair

pytestmark = pytest.mark.root

NAME, OURS, BEYOND, PORT, CAPACITY = "tun7", "10.77.0.1", "10.77.0.2", 4000, 8


@pytest.fixture
def tun(pair: Pair) -> Iterator[Tun]:
    with pair.inside("a", lambda: Tun(NAME, CAPACITY)) as tun:
        pair.inside("a", bring_up)
        yield tun


def bring_up() -> None:
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=NAME)[0]
        ip.addr("add", index=index, address=OURS, prefixlen=24)
        ip.link("set", index=index, state="up")


def interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


@pytest.fixture
def udp(pair: Pair, tun: Tun) -> Iterator[socket.socket]:
    def opened() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((OURS, PORT))
        sock.settimeout(2)
        return sock

    with pair.inside("a", opened) as sock:
        yield sock


def receive(tun: Tun, wanted: int) -> list[bytes]:
    """Receive this many UDP packets, each as a frame."""
    batch, packets = Batch(CAPACITY), list[bytes]()
    while len(packets) < wanted:
        assert select.select([tun], [], [], 2)[0], "no packet came"
        for index in range(tun.receive(batch)):
            data = ctypes.string_at(int(batch.address[index]), int(batch.length[index]))
            packets += [data] if data[ETHERNET_BYTES + 9] == socket.IPPROTO_UDP else []
    return packets


def test_packets_from_the_stack_get_a_blank_ethernet_header(tun: Tun, udp: socket.socket) -> None:
    udp.sendto(b"hello", (BEYOND, 5000))
    (data,) = receive(tun, 1)
    assert data[:ETHERNET_BYTES] == bytes(12) + b"\x08\x00"
    packet = IP(data[ETHERNET_BYTES:])
    assert (packet.src, packet.dst, packet.sport, packet.dport) == (OURS, BEYOND, PORT, 5000)
    assert bytes(packet[UDP].payload) == b"hello"


def test_more_packets_than_the_batch_holds_come_in_order(tun: Tun, udp: socket.socket) -> None:
    for value in range(3 * CAPACITY):
        udp.sendto(bytes([value]), (BEYOND, 5000))
    assert [data[-1] for data in receive(tun, 3 * CAPACITY)] == list(range(3 * CAPACITY))
    assert tun.receive(Batch(CAPACITY)) == 0, "no frame waits, and the call does not block"


def test_headroom_before_each_frame_may_be_written(tun: Tun, udp: socket.socket) -> None:
    batch = Batch(CAPACITY)
    for value in (b"first", b"second"):
        udp.sendto(value, (BEYOND, 5000))
    while not batch.count:
        assert select.select([tun], [], [], 2)[0]
        tun.receive(batch)
    before = [ctypes.string_at(int(batch.address[i]), int(batch.length[i])) for i in range(batch.count)]
    for index in range(batch.count):
        ctypes.memset(int(batch.address[index]) - HEADROOM_BYTES, 0xFF, HEADROOM_BYTES)
    assert [ctypes.string_at(int(batch.address[i]), int(batch.length[i])) for i in range(batch.count)] == before


def test_packets_with_a_lower_verdict_reach_the_stack_and_no_others(tun: Tun, udp: socket.socket) -> None:
    packets = [bytes(IP(src=BEYOND, dst=OURS) / UDP(sport=5000, dport=PORT) / bytes([value])) for value in range(4)]
    batch, memory = Batch(CAPACITY), np.zeros((len(packets), 128), np.uint8)
    for index, packet in enumerate(packets):
        memory[index, ETHERNET_BYTES : ETHERNET_BYTES + len(packet)] = np.frombuffer(packet, np.uint8)
        batch.address[index], batch.length[index] = memory[index].ctypes.data, ETHERNET_BYTES + len(packet)
    batch.count = len(packets)
    batch.verdict[:4] = [Verdict.DELIVERED, Verdict.NOT_TUNNELLED, Verdict.NOT_A_MUX, Verdict.DELIVERED]
    assert tun.send(batch, PASSES) == 2
    assert [udp.recvfrom(100) for _ in range(2)] == [(b"\0", (BEYOND, 5000)), (b"\3", (BEYOND, 5000))]


def test_a_single_packet_reaches_the_stack(tun: Tun, udp: socket.socket) -> None:
    tun.write(bytes(IP(src=BEYOND, dst=OURS) / UDP(sport=5000, dport=PORT) / b"one"))
    assert udp.recvfrom(100) == (b"one", (BEYOND, 5000))


def test_frames_that_the_stack_refuses_are_not_counted_as_taken(tun: Tun) -> None:
    batch, junk = Batch(CAPACITY), np.full(64, 0xEE, np.uint8)  # its first half-byte is not an IP version
    batch.address[0], batch.length[0], batch.count = junk.ctypes.data, 64, 1
    assert tun.send(batch, PASSES) == 0


def test_a_device_that_is_down_takes_nothing_and_raises_nothing(pair: Pair, tun: Tun, udp: socket.socket) -> None:
    def take_down() -> None:
        with IPRoute() as ip:
            ip.link("set", index=ip.link_lookup(ifname=NAME)[0], state="down")

    pair.inside("a", take_down)
    batch, packet = Batch(CAPACITY), np.zeros(64, np.uint8)
    packet[ETHERNET_BYTES] = 0x45
    batch.address[0], batch.length[0], batch.count = packet.ctypes.data, 64, 1
    assert tun.send(batch, PASSES) == 0
    assert tun.receive(batch) == 0


def test_it_is_gone_when_closed(pair: Pair) -> None:
    with pair.inside("a", lambda: Tun(NAME, CAPACITY)) as tun:
        assert tun.name == NAME
        assert NAME in pair.inside("a", interfaces)
    assert NAME not in pair.inside("a", interfaces)


def test_the_kernel_numbers_a_name_with_a_pattern(pair: Pair) -> None:
    with pair.inside("a", lambda: Tun("lb%d", CAPACITY)) as tun:
        assert tun.name == "lb0"


def test_a_device_that_another_has_is_refused(pair: Pair, tun: Tun) -> None:
    with pytest.raises(SetupError, match=f"^TUN device {NAME}: another agent uses it [(]stop that agent first[)]$"):
        pair.inside("a", lambda: Tun(NAME, CAPACITY))


def test_a_name_of_another_kind_of_interface_is_refused(pair: Pair) -> None:
    with pytest.raises(SetupError, match=r"^TUN device a0: "):
        pair.inside("a", lambda: Tun("a0", CAPACITY))


def test_consecutive_segments_reach_the_stack_as_one_packet(pair: Pair, tun: Tun) -> None:
    ip = IP(src=BEYOND, dst=OURS, flags="DF")
    parts = [bytes([value]) * 100 for value in range(3)]
    segments = [ip / TCP(sport=1, dport=2, flags="A", seq=100 * at) / part for at, part in enumerate(parts)]
    packets = [bytes(segment) for segment in [*segments, ip / TCP(sport=1, dport=3, flags="A") / b"alone"]]
    batch, memory = Batch(CAPACITY), np.zeros((len(packets), 256), np.uint8)
    for index, packet in enumerate(packets):
        memory[index, ETHERNET_BYTES - 2 : ETHERNET_BYTES + len(packet)] = np.frombuffer(b"\x08\x00" + packet, np.uint8)
        batch.address[index], batch.length[index] = memory[index].ctypes.data, ETHERNET_BYTES + len(packet)
    batch.count = len(packets)
    before = memory.copy()

    def watch() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETHERTYPE_IPV4))
        sock.bind((NAME, ETHERTYPE_IPV4))
        sock.settimeout(2)
        return sock

    with pair.inside("a", watch) as sock:
        assert tun.send(batch, PASSES) == len(packets)
        whole, alone = (IP(sock.recv(2000)) for _ in range(2))
    assert (whole.len, bytes(whole[TCP].payload)) == (40 + 300, b"".join(parts))
    assert bytes(alone) == packets[-1]
    assert np.array_equal(memory, before), "the frames are as they were"
