"""Fragmentation of packets: outer packets of a tunnel that are too big for the path to the host.

In IPv6 only the sender may fragment, and the mux is the sender of the outer packet (RFC 2473, section 7.1). The caller
supplies the identification, which must not repeat between one pair of hosts.
"""

import struct
from collections.abc import Iterator

from lbmux.wire.packet import FRAGMENT, FRAGMENT_BYTES, IPV6_BYTES, MORE_FRAGMENTS, OFFSET_MASK, with_header_checksum

UNIT_BYTES = 8
"""Fragment offsets are multiples of this."""


def fragment_packet(packet: bytes, mtu_bytes: int, identification: int) -> list[bytes]:
    """Split the packet into fragments that fit, or return it whole if it fits. It must have no extension headers.

    The packet may itself be an IPv4 fragment, as at a router; its offset is kept.
    """
    if len(packet) <= mtu_bytes:
        return [packet]
    return list((_cut_ipv4 if packet[0] >> 4 == 4 else _cut_ipv6)(packet, mtu_bytes, identification))


def _pieces(payload: bytes, room_bytes: int) -> Iterator[tuple[int, bytes, bool]]:
    """Yield (offset, bytes, whether more follow)."""
    step = max(UNIT_BYTES, room_bytes - room_bytes % UNIT_BYTES)
    for at in range(0, len(payload), step):
        yield at, payload[at : at + step], at + step < len(payload)


def _cut_ipv4(packet: bytes, mtu_bytes: int, identification: int) -> Iterator[bytes]:
    size = (packet[0] & 15) * 4
    field = int.from_bytes(packet[6:8], "big")
    first, more_behind = field & OFFSET_MASK, field & MORE_FRAGMENTS
    for at, piece, more in _pieces(packet[size:], mtu_bytes - size):
        flags = MORE_FRAGMENTS if more or more_behind else 0
        middle = struct.pack("!HHH", size + len(piece), identification & 0xFFFF, flags | first + at // UNIT_BYTES)
        yield with_header_checksum(packet[:2] + middle + packet[8:size]) + piece


def _cut_ipv6(packet: bytes, mtu_bytes: int, identification: int) -> Iterator[bytes]:
    for at, piece, more in _pieces(packet[IPV6_BYTES:], mtu_bytes - IPV6_BYTES - FRAGMENT_BYTES):
        length = struct.pack("!HB", FRAGMENT_BYTES + len(piece), FRAGMENT)
        shim = struct.pack("!BxHI", packet[6], at | more, identification & 0xFFFFFFFF)
        yield packet[:4] + length + packet[7:IPV6_BYTES] + shim + piece
