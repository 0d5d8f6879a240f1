"""Packets of known flows to a mux, each with a number of its own, and those that come back in tunnels."""

import socket
import struct
import threading
import time
from collections import defaultdict
from ipaddress import IPv4Address

from lbmux.lab.lab import Lab
from lbmux.lab.namespaces import link_mac
from tests.datapath.craft import ACK, SYN, Craft

PPS, FLOWS = 10_000, 200
SO_RCVBUFFORCE, SOL_PACKET, PACKET_STATISTICS = 33, 263, 6
ETH_P_IP, SEQUENCE_AT, PORT_AT, OUTER, OUTER_DESTINATION = 0x0800, 14 + 20 + 4, 14 + 20, 20, 14 + 16
TCP_FLAGS_AT = 14 + 20 + 13


class Stream(threading.Thread):
    """Packets of some flows at 10,000 a second, each with a number of its own, and those that came back in tunnels."""

    def __init__(self, lab: Lab, first_port: int = 40000) -> None:
        super().__init__()
        self._to, own = (lab.inside(node, lambda: link_mac("eth0")) for node in ("mux1", "sender"))
        addresses = self._to.to_bytes(6, "little") + own.to_bytes(6, "little")
        self._ports = range(first_port, first_port + FLOWS)
        crafted = [Craft(source_port=port, payload=bytes(20)).frame() for port in self._ports]
        self._frames = [bytearray(addresses + frame[12:]) for frame in crafted]
        self._socket = lab.inside("sender", self._open)
        self._stopped = threading.Event()
        self.sent = 0
        self.back = set[int]()
        self.backends = defaultdict[int, set[str]](set)
        """Frames by source port."""

    @staticmethod
    def _open() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # protocol 0: no frames until bind
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 29)
        sock.bind(("eth0", ETH_P_IP))
        sock.settimeout(0)
        return sock

    def __enter__(self) -> "Stream":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self.join()
        deadline = time.monotonic() + 2
        while self.lost and time.monotonic() < deadline:
            time.sleep(0.02)
            self.read()
        _, overrun = struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self._socket.close()
        assert overrun == 0, "the test itself must not lose any"

    def run(self) -> None:
        begun = time.monotonic()
        while not self._stopped.wait(0.001):
            due = int((time.monotonic() - begun) * PPS)
            for number in range(self.sent, min(due, self.sent + 1000)):
                frame = self._frames[number % FLOWS]
                frame[TCP_FLAGS_AT] = SYN if number < FLOWS else ACK
                struct.pack_into("!I", frame, SEQUENCE_AT, number)
                self._socket.send(frame)
                self.sent = number + 1

    def read(self) -> int:
        """Take what has come back by now; how many there are in all."""
        while True:
            try:
                frame = self._socket.recv(256)
            except BlockingIOError:
                return len(self.back)
            if frame[23] != socket.IPPROTO_IPIP:
                continue
            (port,) = struct.unpack_from("!H", frame, PORT_AT + OUTER)
            if port in self._ports:  # the mux probes hosts through the same tunnels
                self.back.add(struct.unpack_from("!I", frame, SEQUENCE_AT + OUTER)[0])
                self.backends[port].add(str(IPv4Address(frame[OUTER_DESTINATION : OUTER_DESTINATION + 4])))

    def goes_on(self, seconds: float = 0.5) -> None:
        """Wait until packets sent from now on come back."""
        first = self.sent
        time.sleep(seconds)
        last = self.sent
        assert last - first > 0.5 * seconds * PPS
        deadline = time.monotonic() + 5
        while not set(range(first, last)) <= self.back:
            assert time.monotonic() < deadline, f"{len(set(range(first, last)) - self.back)} of {last - first} missing"
            time.sleep(0.02)
            self.read()

    @property
    def lost(self) -> list[int]:
        return sorted(set(range(self.sent)) - self.back)

    def assert_nothing_is_lost(self) -> None:
        lost = self.lost
        assert not lost, f"{len(lost)} of {self.sent} lost: {lost[:3]} to {lost[-3:]}"
        assert self.sent > PPS
        assert {port: backends for port, backends in self.backends.items() if len(backends) > 1} == {}, "flows moved"
