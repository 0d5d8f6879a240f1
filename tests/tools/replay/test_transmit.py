"""Captures onto a wire: when each frame is due, and a veth pair that they come out of."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pyroute2 import IPRoute, netns

from lbmux.addresses import mac_to_int
from lbmux.errors import SetupError
from lbmux.lab import namespaces
from lbmux.tools.replay.looped_capture import LoopedCapture
from lbmux.tools.replay.transmit import LONGEST_SILENCE_NS, Macs, Pace, Sent, Wire, put_on_wire
from tests.frames.captures import pcap, record

ETH_P_ALL, SO_RCVBUFFORCE = 3, 33  # linux/if_ether.h, asm/socket.h; the socket module does not name them
NAMESPACE = f"lbmux-wire-{os.getpid()}"
SOURCE, DESTINATION = mac_to_int("02:00:00:00:00:01"), mac_to_int("02:00:00:00:00:02")
CAPTURED = bytes.fromhex("020000000008020000000007")
ADDRESSED = bytes.fromhex("020000000002020000000001")
PACKET = b"\x45" + bytes(49)


def due(pace: Pace, *times_ns: int) -> list[int]:
    return pace.due(np.array(times_ns, np.int64)).tolist()


class TestPace:
    def test_the_rate_holds_across_batches(self) -> None:
        pace = Pace(1000)
        assert due(pace, 5, 5, 5) == [0, 1_000_000, 2_000_000]
        assert due(pace, 5) == [3_000_000]

    def test_recorded_times_from_the_first_on(self) -> None:
        pace = Pace(None)
        assert due(pace, 1000, 1010) == [0, 10]
        assert due(pace, 1010, 1500) == [10, 500]

    def test_time_that_goes_back_does_not_wait(self) -> None:
        assert due(Pace(None), 1000, 400, 410) == [0, 0, 10]

    def test_a_long_silence_is_shortened(self) -> None:
        pace = Pace(None)
        assert due(pace, 0, 3600 * 10**9) == [0, LONGEST_SILENCE_NS]
        assert due(pace, 7200 * 10**9, 7200 * 10**9 + 7) == [2 * LONGEST_SILENCE_NS, 2 * LONGEST_SILENCE_NS + 7]


def test_packets_per_second() -> None:
    assert Sent(20, 10, 0.5).packets_per_second == 20
    assert Sent(0, 0, 0.0).packets_per_second == 0


def cable() -> socket.socket:
    """Inside a namespace: a veth pair without IPv6, so that it carries no other traffic; a reader of its far end."""
    namespaces.set_sysctls({"net.ipv6.conf.default.disable_ipv6": "1"})
    with IPRoute() as route:
        route.link("add", ifname="near", kind="veth", peer={"ifname": "far"})
        for end in ("near", "far"):
            route.link("set", index=route.link_lookup(ifname=end)[0], state="up")
    far = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    far.bind(("far", ETH_P_ALL))
    far.settimeout(1)
    return far


@pytest.mark.root
class TestWire:
    @pytest.fixture
    def far(self) -> Iterator[socket.socket]:
        netns.create(NAMESPACE)
        try:
            with namespaces.inside(NAMESPACE, cable) as far:
                yield far
        finally:
            netns.remove(NAMESPACE)

    def send(self, directory: Path, content: bytes, pps: int | None = 100_000, every: bool = False) -> Sent:
        source = directory / "capture"
        source.write_bytes(content)

        def work() -> Sent:
            with LoopedCapture(source) as looped, Wire("near", Macs(SOURCE, DESTINATION, every)) as wire:
                return put_on_wire(looped, wire, pps)

        return namespaces.inside(NAMESPACE, work)

    def test_frames_come_out_as_they_were_captured(self, far: socket.socket, tmp_path: Path) -> None:
        frames = [CAPTURED + b"\x08\x00" + PACKET + bytes([number % 256]) for number in range(1100)]
        far.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        sent = self.send(tmp_path, pcap(*map(record, frames)))
        assert (sent.packets, sent.sent, sent.damage) == (1100, 1100, None)
        assert [far.recv(2048) for _ in frames] == frames

    def test_raw_ip_gets_the_addresses(self, far: socket.socket, tmp_path: Path) -> None:
        self.send(tmp_path, pcap(record(PACKET), link=101))
        assert far.recv(2048) == ADDRESSED + b"\x08\x00" + PACKET

    def test_all_frames_get_new_mac_addresses_if_requested(self, far: socket.socket, tmp_path: Path) -> None:
        self.send(tmp_path, pcap(record(CAPTURED + b"\x08\x00" + PACKET)), every=True)
        assert far.recv(2048) == ADDRESSED + b"\x08\x00" + PACKET

    def test_rate(self, far: socket.socket, tmp_path: Path) -> None:
        sent = self.send(tmp_path, pcap(*[record(CAPTURED + b"\x08\x00" + PACKET)] * 101), 500)
        assert sent.sent == 101
        assert 0.2 <= sent.seconds < 0.4

    def test_recorded_times(self, far: socket.socket, tmp_path: Path) -> None:
        frame = CAPTURED + b"\x08\x00" + PACKET
        sent = self.send(tmp_path, pcap(record(frame, 7, 900_000), record(frame, 8, 100_000)), None)
        assert 0.2 <= sent.seconds < 0.4

    def test_frame_beyond_the_mtu_is_not_taken(self, far: socket.socket, tmp_path: Path) -> None:
        frame = CAPTURED + b"\x08\x00" + PACKET
        sent = self.send(tmp_path, pcap(record(frame), record(frame + bytes(1500)), record(frame)))
        assert (sent.packets, sent.sent) == (3, 2)

    def test_intact_packets_come_before_the_damage(self, far: socket.socket, tmp_path: Path) -> None:
        whole = pcap(record(CAPTURED + b"\x08\x00" + PACKET))
        sent = self.send(tmp_path, whole + b"cut")
        assert sent.sent == 1 and sent.damage and sent.damage.offset == len(whole)

    def test_interface_that_is_not_there(self) -> None:
        with pytest.raises(SetupError, match="nope0"):
            Wire("nope0", Macs(SOURCE, DESTINATION, False))
