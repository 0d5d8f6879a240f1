"""Frames made by struct, right ones and wrong ones, and a seeded stream of both."""

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.datapath.plain_packet import CHECKSUM_AT, TCP, UDP, checksum, header_checksum, put, sum16

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
ETHERNET = b"\x02\0\0\0\0\x01" + b"\x02\0\0\0\0\x02"


@dataclass(frozen=True)
class Craft:
    """One frame's fields.  ``check``: right, wrong, zero or unfinished (transport checksum).  IPv6 where the addresses
    are; ``tos`` is then the traffic class, ``ttl`` the hop limit.  ``tags``: VLAN tags, each with its type first."""

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
    tcp_options: bytes = b""
    length: int | None = None  # what the IP header claims
    version_ihl: int | None = None  # the first byte
    check: str = "right"
    header_check: str = "right"
    padding: bytes = b""
    type: int | None = None
    tags: bytes = b""
    label: int = 0
    extensions: tuple[tuple[int, bytes], ...] = ()
    """IPv6 extension headers: their numbers, and their bytes but the first, which says what follows."""

    @property
    def is_ipv6(self) -> bool:
        return len(self.source) == 16

    def frame(self) -> bytes:
        kind = self.type if self.type is not None else 0x86DD if self.is_ipv6 else 0x0800
        return ETHERNET + self.tags + struct.pack("!H", kind) + self.packet() + self.padding

    def packet(self) -> bytes:
        return self._ipv6() if self.is_ipv6 else self._ipv4()

    def _ipv4(self) -> bytes:
        body = self._checked(self._transport())
        length = 20 + len(self.options) + len(body) if self.length is None else self.length
        head = struct.pack(
            "!BBHHHBBH", 0x45 + len(self.options) // 4, self.tos, length, self.identification, self.fragment,
            self.ttl, self.protocol, 0,
        )  # fmt: skip
        head += self.source + self.destination + self.options
        right = header_checksum(head)
        if self.version_ihl is not None:
            head = put(head, 0, bytes([self.version_ihl]))
            right = checksum(head)
        check = {"right": right, "wrong": right ^ 0x0101, "zero": 0}[self.header_check]
        return put(head, 10, struct.pack("!H", check)) + body

    def _ipv6(self) -> bytes:
        body = self._checked(self._transport())
        kinds = [kind for kind, _ in self.extensions] + [self.protocol]
        for (_, data), following in zip(reversed(self.extensions), reversed(kinds[1:]), strict=True):
            body = bytes([following]) + data + body
        length = len(body) if self.length is None else self.length
        head = struct.pack("!IHBB", 6 << 28 | self.tos << 20 | self.label, length, kinds[0], self.ttl)
        if self.version_ihl is not None:
            head = put(head, 0, bytes([self.version_ihl]))
        return head + self.source + self.destination + body

    def _transport(self) -> bytes:
        ports = struct.pack("!HH", self.source_port, self.destination_port)
        if self.protocol == TCP:
            offset = 0x50 + (len(self.tcp_options) // 4 << 4)
            head = struct.pack("!IIBBHHH", 1, 2, offset, self.flags, 65535, 0, 0)
            return ports + head + self.tcp_options + self.payload
        if self.protocol == UDP:
            return ports + struct.pack("!HH", 8 + len(self.payload) & 0xFFFF, 0) + self.payload
        return self.payload

    def _checked(self, body: bytes) -> bytes:
        if self.protocol not in CHECKSUM_AT:
            return body
        at = CHECKSUM_AT[self.protocol]
        pseudo = self.source + self.destination + struct.pack("!II", len(body), self.protocol)
        right = checksum(pseudo + body)
        if right == 0 and self.protocol == UDP:
            right = 0xFFFF
        value = {"right": right, "wrong": right ^ 0x0101, "zero": 0, "unfinished": sum16(pseudo)}[self.check]
        return put(body, at, struct.pack("!H", value))


def tag(number: int, kind: int = 0x8100) -> bytes:
    """A VLAN tag."""
    return struct.pack("!HH", kind, number)


def tunnelled(inner: bytes, source: bytes, destination: bytes, **fields: int) -> bytes:
    """A frame with ``inner`` (an IP packet) behind an outer header."""
    protocol = 41 if inner[:1] and inner[0] >> 4 == 6 else 4
    return Craft(source=source, destination=destination, protocol=protocol, payload=inner, **fields).frame()  # type: ignore[arg-type]


def quic(server: int, rotation: int = 2, is_long: bool = False) -> bytes:
    """A datagram whose connection id names a server by one byte."""
    identifier = bytes([rotation << 5, server]) + bytes(8)
    return (b"\xc0\0\0\0\x01\x0a" if is_long else b"\x40") + identifier + bytes(20)


class Stream:
    """Frames without end: known flows that repeat, new ones, and everything that can be wrong with a frame."""

    def __init__(self, seed: int, destinations: list[tuple[bytes, int, int]], flows: int = 400) -> None:
        """``destinations``: (address, protocol, port) that the frames go to."""
        self.random = random.Random(seed)
        self.destinations = destinations
        self.flows = [self._new() for _ in range(flows)]

    def _new(self) -> Craft:
        address, protocol, port = self.random.choice(self.destinations)
        source = bytes([198, 18, *self.random.randbytes(2)])
        if len(address) == 16:
            source = bytes.fromhex("20010db80001") + self.random.randbytes(10)
        return Craft(
            source=source,
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
            # A few flows carry most of the packets.
            flow = self.flows[int(len(self.flows) * pick.random() ** 2)] if pick.random() < 0.8 else self._new()
            if pick.random() < 0.05:  # one client, one port, another service
                same_family = [one for one in self.destinations if len(one[0]) == len(flow.destination)]
                address, protocol, port = pick.choice(same_family)
                flow = replace(flow, destination=address, protocol=protocol, destination_port=port)
            yield replace(
                flow,
                flags=pick.choice([*[ACK] * 12, ACK | PSH, SYN, SYN | ACK, FIN | ACK, RST, RST | ACK, 0]),
                payload=pick.choice(
                    [pick.randbytes(pick.choice([0, 0, 1, 6, 7, 100, 501, 1000]))] * 5 + [quic(pick.choice([0, 1, 2]))]
                ),
                tos=pick.choice([0, 0, 0x10, 0xB8, 0x03]),
                identification=pick.choice([0, pick.getrandbits(16)]),
                fragment=pick.choice([0x4000, 0x4000, 0, 0x8000]),
                ttl=pick.choice([*[64] * 20, 2, 255, 1]),
                label=pick.choice([0, pick.getrandbits(20)]),
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
            lambda: replace(craft, protocol=pick.choice([1, 2, 4, 41, 47, 50, 58, 132])).frame(),
            lambda: replace(craft, type=pick.choice([0x0806, 0x86DD, 0x8100, 0x88A8, 0x0801])).frame(),
            lambda: replace(craft, destination=pick.randbytes(len(craft.destination))).frame(),
            lambda: replace(craft, tags=tag(7) * pick.randint(1, 3)).frame(),
            lambda: replace(craft, tags=tag(7, 0x88A8) + tag(9)).frame(),
            lambda: replace(craft, extensions=self._extensions()).frame(),
            lambda: replace(craft, destination_port=pick.getrandbits(16)).frame(),
            lambda: replace(craft, payload=bytes(pick.choice([1440, 1452, 1460, 1472, 3000]))).frame(),
            lambda: pick.randbytes(pick.randrange(100)),
            lambda: frame[:14] + pick.randbytes(len(frame) - 14),
            lambda: _with_byte(frame, pick.randrange(len(frame)), pick.getrandbits(8)),
        ]  # fmt: skip
        return pick.choice(ways)()

    def _extensions(self) -> tuple[tuple[int, bytes], ...]:
        """Up to ten, one more than are followed and some over; now and then with a length that lies."""
        pick, headers = self.random, []
        if pick.random() < 0.2:
            return ((60, bytes(7)),) * 9
        for _ in range(pick.choice([1, 1, 1, 2, 3, 9, 10])):
            kind, units = pick.choice([0, 43, 60, 44, 51]), pick.choice([0, 0, 1, 3])
            if kind == 44:
                data = pick.choice([bytes(7), bytes(7), b"\0\0\x01" + bytes(4), b"\0\x10\0" + bytes(4)])
            elif kind == 51:
                data = bytes([2 * units + 2]) + bytes(8 * units + 14)
            else:
                data = bytes([units]) + bytes(8 * units + 6)
            if pick.random() < 0.05:
                data = bytes([pick.getrandbits(8)]) + data[1:]
            headers.append((kind, data))
        return tuple(headers)


def _with_byte(frame: bytes, at: int, value: int) -> bytes:
    return frame[:at] + bytes([value]) + frame[at + 1 :]
