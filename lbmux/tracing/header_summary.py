"""Summary of a frame's headers, for filters and for people: addresses, protocol, ports, TCP flags, length.

This is off the packet path.  The reader takes any bytes: what a truncated or malformed frame lacks stays unset.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from lbmux.addresses import Address
from lbmux.datapath.headers import (
    ETHERNET_BYTES,
    ICMP_PROTOCOL,
    ICMPV6_PROTOCOL,
    IPV4_BYTES,
    IPV6_BYTES,
    TAG_BYTES,
    TCP_BYTES,
    TCP_PROTOCOL,
    TYPE_IPV4,
    TYPE_IPV6,
    TYPE_QINQ,
    TYPE_VLAN,
    UDP_PROTOCOL,
)
from lbmux.plurals import counted

IPV4_TYPE, IPV6_TYPE, *TAGS = (kind.to_bytes(2, "little") for kind in (TYPE_IPV4, TYPE_IPV6, TYPE_VLAN, TYPE_QINQ))
TYPE_AT, FLAGS_AT = 12, 13
"""Offsets in bytes: the type in Ethernet's header, the flags in TCP's (RFC 9293, 3.1)."""
IPV4_FIELDS, IPV6_FIELDS, PORTS = struct.Struct("!BxH2xHxB2x4s4s"), struct.Struct("!4xHBx16s16s"), struct.Struct("!HH")
"""RFC 791, 3.1: version and header length, total length, fragment, protocol, addresses.  RFC 8200, 3: payload length,
next header, addresses.  RFC 9293, 3.1 and RFC 768: source and destination port.  Network byte order."""
OFFSET = 0x1FFF
"""The bits of ``fragment`` with the fragment's offset in its datagram."""
NAMES = {ICMP_PROTOCOL: "icmp", ICMPV6_PROTOCOL: "icmp6", TCP_PROTOCOL: "tcp", UDP_PROTOCOL: "udp"}
FLAGS = "FSRP.U"
"""TCP flags as tcpdump writes them, from the lowest bit."""


@dataclass(frozen=True)
class HeaderSummary:
    """What the headers say; None or 0 for what a frame does not have, or is too short to hold."""

    source: Address | None = None
    destination: Address | None = None
    protocol: int = -1
    source_port: int | None = None
    port: int | None = None
    flags: int = 0
    length: int = 0
    """Bytes of the IP packet, or of the frame if it is not IP."""
    start: int = ETHERNET_BYTES
    """Offset of the IP header in the frame, in bytes."""

    @classmethod
    def read(cls, frame: bytes) -> "HeaderSummary":
        """Read as many headers as are valid; a truncated or malformed frame raises no error."""
        at, kind = ETHERNET_BYTES, frame[TYPE_AT:ETHERNET_BYTES]
        while kind in TAGS:
            kind, at = frame[at + 2 : at + TAG_BYTES], at + TAG_BYTES
        if kind == IPV4_TYPE and len(frame) >= at + IPV4_BYTES:
            version_ihl, length, fragment, protocol, source, destination = IPV4_FIELDS.unpack_from(frame, at)
            ends: tuple[Address, Address] = IPv4Address(source), IPv4Address(destination)
            behind = None if fragment & OFFSET else at + (version_ihl & 15) * 4
            return cls._of(frame, ends, protocol, behind, length, at)
        if kind == IPV6_TYPE and len(frame) >= at + IPV6_BYTES:
            length, protocol, source, destination = IPV6_FIELDS.unpack_from(frame, at)
            ends = IPv6Address(source), IPv6Address(destination)
            return cls._of(frame, ends, protocol, at + IPV6_BYTES, IPV6_BYTES + length, at)
        return cls(length=len(frame))

    @classmethod
    def _of(
        cls, frame: bytes, ends: tuple[Address, Address], protocol: int, at: int | None, length: int, start: int
    ) -> "HeaderSummary":
        """``at``: offset of the transport header, None in a later fragment."""
        if protocol not in (TCP_PROTOCOL, UDP_PROTOCOL) or at is None or len(frame) < at + PORTS.size:
            return cls(*ends, protocol, length=length, start=start)
        flags = frame[at + FLAGS_AT] if protocol == TCP_PROTOCOL and len(frame) >= at + TCP_BYTES else 0
        source_port, port = PORTS.unpack_from(frame, at)
        return cls(*ends, protocol, source_port, port, flags, length, start)

    @property
    def name(self) -> str:
        return NAMES.get(self.protocol, f"protocol {self.protocol}")

    def __str__(self) -> str:
        """Return one line, much as tcpdump prints it."""
        if self.source is None:
            return f"not IP, {counted(self.length, 'byte')}"
        ends = f"{_end(self.source, self.source_port)} > {_end(self.destination, self.port)}"
        flags = "".join(letter for bit, letter in enumerate(FLAGS) if self.flags >> bit & 1)
        return f"{ends} {self.name}{f' [{flags}]' if flags else ''}, {counted(self.length, 'byte')}"


def _end(address: Address | None, port: int | None) -> str:
    host = f"[{address}]" if isinstance(address, IPv6Address) and port is not None else str(address)
    return host if port is None else f"{host}:{port}"
