"""The Internet checksum (RFC 1071) over bytes, and the pseudo-headers of the transport protocols.

The slow path uses it for packets that it builds or changes. The data path has its own (lbmux.datapath.checksums).
"""

import struct

from lbmux.addresses import Address
from lbmux.wire.header_layouts import ICMP, IPV4, TCP, UDP
from lbmux.wire.numbers import ICMP_PROTOCOL, ICMPV6_PROTOCOL, TCP_PROTOCOL, UDP_PROTOCOL

TRANSPORTS = {ICMP_PROTOCOL: ICMP, TCP_PROTOCOL: TCP, UDP_PROTOCOL: UDP, ICMPV6_PROTOCOL: ICMP}
CHECKSUM_AT = {protocol: header.at("checksum") for protocol, header in TRANSPORTS.items()}
"""The checksum's offset in the transport header, in bytes, by protocol."""


def checksum(data: bytes) -> int:
    """Return the ones' complement of the ones' complement sum of the 16-bit words, as a number.

    In that sum 2**16 equals 1, so one division by 0xFFFF computes it.
    """
    number = int.from_bytes(data if len(data) % 2 == 0 else data + b"\0", "big")
    rest = number % 0xFFFF
    return 0xFFFF - (rest or (0xFFFF if number else 0))


def pseudo_header(source: Address, destination: Address, protocol: int, length_bytes: int) -> bytes:
    """Return the pseudo-header of RFC 9293, section 3.1 (IPv4) or RFC 8200, section 8.1 (IPv6)."""
    if source.version == 4:
        return source.packed + destination.packed + struct.pack("!xBH", protocol, length_bytes)
    return source.packed + destination.packed + struct.pack("!I3xB", length_bytes, protocol)


def with_checksum(source: Address, destination: Address, protocol: int, segment: bytes) -> bytes:
    """Return the whole segment or ICMP message with the correct checksum."""
    at = CHECKSUM_AT[protocol]
    blank = segment[:at] + b"\0\0" + segment[at + 2 :]
    before = b"" if protocol == ICMP_PROTOCOL else pseudo_header(source, destination, protocol, len(segment))
    value = checksum(before + blank)
    if protocol == UDP_PROTOCOL:
        value = value or 0xFFFF  # RFC 768: zero means no checksum
    return blank[:at] + value.to_bytes(2, "big") + blank[at + 2 :]


def with_header_checksum(header: bytes) -> bytes:
    """Return an IPv4 header, including its options, with the correct checksum."""
    return IPV4.replace(header, checksum=checksum(IPV4.replace(header, checksum=0)))


def is_valid(source: Address, destination: Address, protocol: int, segment: bytes) -> bool:
    """Return whether the segment's checksum is correct."""
    before = b"" if protocol == ICMP_PROTOCOL else pseudo_header(source, destination, protocol, len(segment))
    return checksum(before + segment) == 0


def adjusted(value: int, before: bytes, after: bytes) -> int:
    """Return a checksum, updated for ``before`` having become ``after``: an even number of bytes each (RFC 1624)."""
    rest = (0xFFFF - value) + (0xFFFF - checksum(after)) + checksum(before)
    while rest > 0xFFFF:
        rest = (rest & 0xFFFF) + (rest >> 16)
    return 0xFFFF - rest
