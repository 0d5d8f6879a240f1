"""Frames made by struct, right ones and wrong ones, and a seeded stream of both."""

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from .plain_packet import CHECKSUM_AT, TCP, UDP, checksum, header_checksum, sum16, transport_checksum

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
ETHERNET = b"\x02\0\0\0\0\x01" + b"\x02\0\0\0\0\x02"


@dataclass(frozen=True)
class Craft:
    """One frame's fields.  ``check``: right, wrong, zero or unfinished (transport checksum)."""

    source: bytes = bytes([198, 51, 100, 7])
    destination: bytes = bytes([192, 0, 2, 1])
    protocol: int = TCP
    source_port: int = 40000
    destination_port: int = 80
    payload: bytes = b""
    flags: int = ACK
    tos: int = 0
    identification: int = 0
    fragment: int = 0x4000
    ttl: int = 63
    options: bytes = b""
    length: int | None = None  # what the IPv4 header claims
    version_ihl: int | None = None
    check: str = "right"
    header_check: str = "right"
    padding: bytes = b""
    type: int = 0x0800

    def frame(self) -> bytes:
        return ETHERNET + struct.pack("!H", self.type) + self.packet() + self.padding

    def packet(self) -> bytes:
        body = self._transport()
        length = 20 + len(self.options) + len(body)
        head = bytearray(
            struct.pack(
                "!BBHHHBBH", 0x45 + len(self.options) // 4, self.tos, length, self.identification, self.fragment,
                self.ttl, self.protocol, 0,
            )  # fmt: skip
            + self.source
            + self.destination
        )
        if self.protocol in CHECKSUM_AT and not self.options:
            body = self._checked(bytes(head), body)
        if self.length is not None:
            head[2:4] = struct.pack("!H", self.length)
        if self.version_ihl is not None:
            head[0] = self.version_ihl
        right = checksum(bytes(head) + self.options) if self.options else header_checksum(bytes(head))
        head[10:12] = struct.pack("!H", {"right": right, "wrong": right ^ 0x0101, "zero": 0}[self.header_check])
        return bytes(head) + self.options + body

    def _transport(self) -> bytes:
        ports = struct.pack("!HH", self.source_port, self.destination_port)
        if self.protocol == TCP:
            return ports + struct.pack("!IIBBHHH", 1, 2, 0x50, self.flags, 65535, 0, 0) + self.payload
        if self.protocol == UDP:
            return ports + struct.pack("!HH", 8 + len(self.payload), 0) + self.payload
        return self.payload

    def _checked(self, head: bytes, body: bytes) -> bytes:
        at = CHECKSUM_AT[self.protocol]
        right = transport_checksum(head + body)
        if right == 0 and self.protocol == UDP:
            right = 0xFFFF
        unfinished = sum16(head[12:20] + struct.pack("!HH", self.protocol, len(body)))
        value = {"right": right, "wrong": right ^ 0x0101, "zero": 0, "unfinished": unfinished}[self.check]
        return body[:at] + struct.pack("!H", value) + body[at + 2 :]


def tunnelled(inner: bytes, source: bytes, destination: bytes, **fields: int) -> bytes:
    """A frame with ``inner`` (an IPv4 packet) behind an outer IPv4 header."""
    return Craft(source=source, destination=destination, protocol=4, payload=inner, **fields).frame()  # type: ignore[arg-type]


class Stream:
    """Frames without end: known flows that repeat, new ones, and everything that can be wrong with a frame."""

    def __init__(self, seed: int, destinations: list[tuple[bytes, int, int]], flows: int = 400) -> None:
        """``destinations``: (address, protocol, port) that the frames go to."""
        self.random = random.Random(seed)
        self.destinations = destinations
        self.flows = [self._new() for _ in range(flows)]

    def _new(self) -> Craft:
        address, protocol, port = self.random.choice(self.destinations)
        return Craft(
            source=bytes([198, 18, *self.random.randbytes(2)]),
            destination=address,
            protocol=protocol,
            source_port=self.random.randint(1, 65535),
            destination_port=port,
        )

    def crafts(self) -> Iterator[Craft]:
        """Well-formed packets, of varied size, TOS, flags and checksums."""
        pick = self.random
        while True:
            if pick.random() < 0.1:
                self.flows[pick.randrange(len(self.flows))] = self._new()
            # a few flows have most of the packets
            flow = self.flows[int(len(self.flows) * pick.random() ** 2)] if pick.random() < 0.8 else self._new()
            if pick.random() < 0.05:  # one client, one port, another service
                address, protocol, port = pick.choice(self.destinations)
                flow = replace(flow, destination=address, protocol=protocol, destination_port=port)
            yield replace(
                flow,
                flags=pick.choice([*[ACK] * 12, ACK | PSH, SYN, SYN | ACK, FIN | ACK, RST, RST | ACK, 0]),
                payload=pick.randbytes(pick.choice([0, 0, 1, 6, 7, 100, 501, 1000])),
                tos=pick.choice([0, 0, 0x10, 0xB8, 0x03]),
                identification=pick.choice([0, pick.getrandbits(16)]),
                fragment=pick.choice([0x4000, 0x4000, 0, 0x8000]),
                ttl=pick.choice([1, 64, 255]),
                check=pick.choice(["right"] * 6 + ["zero", "wrong", "unfinished"]),
                header_check=pick.choice(["right"] * 6 + ["wrong", "zero"]),
                padding=pick.choice([b"", b"", bytes(6), pick.randbytes(30)]),
            )

    def frames(self) -> Iterator[bytes]:
        """Four of five are well-formed; the others are broken in some way."""
        for craft in self.crafts():
            yield craft.frame() if self.random.random() < 0.8 else self._broken(craft)

    def _broken(self, craft: Craft) -> bytes:
        pick, frame = self.random, craft.frame()
        ways = [
            lambda: frame[: pick.randrange(len(frame) + 1)],
            lambda: frame[: pick.randrange(60)],
            lambda: replace(craft, length=pick.choice([0, 19, 20, 27, 28, 39, 40, 41, pick.getrandbits(16)])).frame(),
            lambda: replace(craft, version_ihl=pick.getrandbits(8)).frame(),
            lambda: replace(craft, options=bytes(4 * pick.randint(1, 10))).frame(),
            lambda: replace(craft, fragment=pick.choice([0x2000, 0x2001, 0x0001, 0x1FFF, 0x4001])).frame(),
            lambda: replace(craft, protocol=pick.choice([1, 2, 4, 41, 47, 50, 132])).frame(),
            lambda: replace(craft, type=pick.choice([0x0806, 0x86DD, 0x8100, 0x88A8, 0x0801])).frame(),
            lambda: replace(craft, destination=pick.randbytes(4)).frame(),
            lambda: replace(craft, destination_port=pick.getrandbits(16)).frame(),
            lambda: replace(craft, payload=bytes(pick.choice([1440, 1452, 1460, 1472, 3000]))).frame(),
            lambda: pick.randbytes(pick.randrange(100)),
            lambda: frame[:14] + pick.randbytes(len(frame) - 14),
            lambda: _with_byte(frame, pick.randrange(len(frame)), pick.getrandbits(8)),
        ]  # fmt: skip
        return pick.choice(ways)()


def _with_byte(frame: bytes, at: int, value: int) -> bytes:
    return frame[:at] + bytes([value]) + frame[at + 1 :]
