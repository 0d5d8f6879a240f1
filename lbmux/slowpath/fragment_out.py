"""Cutting a packet into fragments: the outer packets of a tunnel that are too big for the way to the host.

Only the sender of a packet may do so in IPv6, and of an outer packet the mux is the sender (RFC 2473, section 7.1).
Who calls gives the identification: two packets with one, between one pair of hosts, would be mixed up.
"""

import struct
from collections.abc import Iterator

from lbmux.wire.packet import FRAGMENT, FRAGMENT_BYTES, IPV6_BYTES, MORE_FRAGMENTS, OFFSET_MASK, with_header_checksum

UNIT_BYTES = 8
"""Fragments begin at multiples of it."""


def fragment_packet(packet: bytes, mtu_bytes: int, identification: int) -> list[bytes]:
    """The packet in fragments that fit; it has no extension headers, and is whole if it fits.

    A fragment may be cut further (its offset is kept), as a router does with IPv4's.
    """
    if len(packet) <= mtu_bytes:
        return [packet]
    return list((_cut_ipv4 if packet[0] >> 4 == 4 else _cut_ipv6)(packet, mtu_bytes, identification))


def _pieces(payload: bytes, room_bytes: int) -> Iterator[tuple[int, bytes, bool]]:
    """(offset, bytes, whether more follow)"""
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
