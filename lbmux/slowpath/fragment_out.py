"""Fragmentation of a tunnel's outer packets that are too big for the path to the host.

In IPv6 only the sender may fragment, and the mux is the sender of the outer packet (RFC 2473, section 7.1). The caller
supplies the identification, which must not repeat between one pair of hosts.
"""

from collections.abc import Iterator

from lbmux.wire.header_layouts import FRAGMENT, FRAGMENT_BYTES, IPV4, IPV6, IPV6_BYTES
from lbmux.wire.internet_checksum import with_header_checksum
from lbmux.wire.numbers import FRAGMENT_HEADER, MF, OFFSET_MASK, OFFSET_UNIT_BYTES, V6_MF
from lbmux.wire.packet import ipv4_header_bytes, version_of


def fragment_packet(packet: bytes, mtu_bytes: int, identification: int) -> list[bytes]:
    """Split the packet into fragments that fit, or return it whole if it fits. It must have no extension headers.

    The packet may itself be an IPv4 fragment, as at a router; its offset is kept.
    """
    if len(packet) <= mtu_bytes:
        return [packet]
    return list((_cut_ipv4 if version_of(packet) == 4 else _cut_ipv6)(packet, mtu_bytes, identification))


def _pieces(payload: bytes, piece_bytes: int) -> Iterator[tuple[int, bytes, bool]]:
    """Yield (offset, bytes, whether more follow)."""
    step = max(OFFSET_UNIT_BYTES, piece_bytes - piece_bytes % OFFSET_UNIT_BYTES)
    for at in range(0, len(payload), step):
        yield at, payload[at : at + step], at + step < len(payload)


def _cut_ipv4(packet: bytes, mtu_bytes: int, identification: int) -> Iterator[bytes]:
    size, field = ipv4_header_bytes(packet), IPV4.unpack(packet).fragment
    first, more_behind = field & OFFSET_MASK, field & MF
    for at, piece, more in _pieces(packet[size:], mtu_bytes - size):
        fragment = (MF if more or more_behind else 0) | first + at // OFFSET_UNIT_BYTES
        changed = {"length": size + len(piece), "identification": identification & 0xFFFF, "fragment": fragment}
        yield with_header_checksum(IPV4.replace(packet[:size], **changed)) + piece


def _cut_ipv6(packet: bytes, mtu_bytes: int, identification: int) -> Iterator[bytes]:
    header, following = packet[:IPV6_BYTES], IPV6.unpack(packet).next
    for at, piece, more in _pieces(packet[IPV6_BYTES:], mtu_bytes - IPV6_BYTES - FRAGMENT_BYTES):
        fragment = at | (V6_MF if more else 0)
        shim = FRAGMENT.pack(next=following, fragment=fragment, identification=identification & 0xFFFFFFFF)
        yield IPV6.replace(header, length=FRAGMENT_BYTES + len(piece), next=FRAGMENT_HEADER) + shim + piece
