"""ICMP errors that the mux sends: too big, time exceeded, unreachable, for IPv4 (RFC 792, 1191) and IPv6 (RFC 4443).

Each is about one packet, goes to its source, and quotes as much of it as the family allows. The functions return None
if no error may be sent: about an ICMP error, about a later fragment, and about a packet to or from an address that is
not a single host's (RFC 1122 section 3.2.2, RFC 4443 section 2.4 e). The caller limits the rate.
"""

from lbmux.addresses import Address
from lbmux.wire.header_layouts import ICMP_BYTES, ICMP_ERROR, IP_BYTES
from lbmux.wire.icmp_types import (
    ERRORS,
    HOST,
    NEEDS_FRAGMENTATION,
    TIME_EXCEEDED,
    UNREACHABLE,
    V6_LAST_ERROR,
    V6_REDIRECT,
    V6_TIME_EXCEEDED,
    V6_TOO_BIG,
    V6_UNREACHABLE,
)
from lbmux.wire.packet import Packet, icmp_packet

MOST_BYTES = {4: 576, 6: 1280}
"""The largest packet that carries an error (RFC 1812 section 4.3.2.3, RFC 4443 section 2.4 c)."""
IPV4_LEAST_MTU, IPV6_LEAST_MTU = 68, 1280
PRECEDENCE = 0xC0
"""TOS of IPv4 errors: internetwork control (RFC 1812, section 4.3.2.5)."""


def too_big(packet: Packet, mtu_bytes: int, source: Address) -> bytes | None:
    """Build "fragmentation needed" or "packet too big" for a path MTU of ``mtu_bytes``."""
    if packet.version == 6:
        # RFC 8201: a sender never goes below 1280, so a smaller value is useless.
        return _error(packet, source, V6_TOO_BIG, 0, max(mtu_bytes, IPV6_LEAST_MTU))
    if not packet.dont_fragment:
        return None
    return _error(packet, source, UNREACHABLE, NEEDS_FRAGMENTATION, max(mtu_bytes, IPV4_LEAST_MTU))


def time_exceeded(packet: Packet, source: Address) -> bytes | None:
    """Build "TTL (hop limit) exceeded in transit"."""
    return _error(packet, source, TIME_EXCEEDED if packet.version == 4 else V6_TIME_EXCEEDED, 0)


def unreachable(packet: Packet, source: Address, code: int = HOST) -> bytes | None:
    """Build "unreachable". ``code`` depends on the family: 1 is "host" in IPv4, "prohibited" in IPv6."""
    return _error(packet, source, UNREACHABLE if packet.version == 4 else V6_UNREACHABLE, code)


def is_error(packet: Packet) -> bool:
    """Return whether the packet carries an ICMP error or redirect. One without a type counts as an error."""
    if not packet.is_icmp or packet.offset_bytes:
        return False
    kind = packet.payload[0] if packet.payload else ERRORS[0]
    return kind in ERRORS if packet.version == 4 else kind <= V6_LAST_ERROR or kind == V6_REDIRECT


def may_have_error(packet: Packet) -> bool:
    """Return whether an error about the packet may be sent."""
    return not (
        packet.offset_bytes
        or is_error(packet)
        or not _is_one_machine(packet.source)
        or not _is_one_machine(packet.destination)
        or (packet.link and packet.link[0] & 1)  # a multicast or broadcast MAC address
    )


def _is_one_machine(address: Address) -> bool:
    lasts = address.version == 4 and address.packed[0] >= 240  # class E and the limited broadcast
    return not (address.is_multicast or address.is_unspecified or address.is_loopback or lasts)


def _error(packet: Packet, source: Address, kind: int, code: int, value: int = 0) -> bytes | None:
    if not may_have_error(packet):
        return None
    quoted = packet.data[: MOST_BYTES[packet.version] - IP_BYTES[packet.version] - ICMP_BYTES]
    message = ICMP_ERROR.pack(type=kind, code=code, value=value) + quoted
    return icmp_packet(source, packet.source, message, traffic_class=PRECEDENCE if packet.version == 4 else 0)
