"""The Internet checksum (RFC 1071) over bytes, and the pseudo-headers that transports put before themselves.

For the packets that user space makes or changes itself; the data path has its own, over memory.
"""

import struct

from lbmux.addresses import Address

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
CHECKSUM_AT = {ICMP: 2, TCP: 16, UDP: 6, ICMPV6: 2}
"""Where in a transport header its checksum stands."""


def checksum(data: bytes) -> int:
    """The ones' complement of the ones' complement sum, in which 2**16 counts as 1: so a division tells it."""
    number = int.from_bytes(data if len(data) % 2 == 0 else data + b"\0", "big")
    rest = number % 0xFFFF
    return 0xFFFF - (rest or (0xFFFF if number else 0))


def pseudo_header(source: Address, destination: Address, protocol: int, length_bytes: int) -> bytes:
    """RFC 9293 section 3.1 for IPv4, RFC 8200 section 8.1 for IPv6."""
    if source.version == 4:
        return source.packed + destination.packed + struct.pack("!xBH", protocol, length_bytes)
    return source.packed + destination.packed + struct.pack("!I3xB", length_bytes, protocol)


def with_checksum(source: Address, destination: Address, protocol: int, segment: bytes) -> bytes:
    """The whole segment (an ICMP message, too) with its right checksum."""
    at = CHECKSUM_AT[protocol]
    blank = segment[:at] + b"\0\0" + segment[at + 2 :]
    before = b"" if protocol == ICMP else pseudo_header(source, destination, protocol, len(segment))
    value = checksum(before + blank)
    if protocol == UDP:
        value = value or 0xFFFF  # RFC 768: zero means that there is none
    return blank[:at] + value.to_bytes(2, "big") + blank[at + 2 :]


def is_valid(source: Address, destination: Address, protocol: int, segment: bytes) -> bool:
    """Whether the segment's own checksum is right."""
    before = b"" if protocol == ICMP else pseudo_header(source, destination, protocol, len(segment))
    return checksum(before + segment) == 0


def adjusted(value: int, before: bytes, after: bytes) -> int:
    """A checksum after the even number of bytes ``before`` became ``after`` (RFC 1624), the rest being unknown."""
    rest = (0xFFFF - value) + (0xFFFF - checksum(after)) + checksum(before)
    while rest > 0xFFFF:
        rest = (rest & 0xFFFF) + (rest >> 16)
    return 0xFFFF - rest
