"""Summary of a frame's headers, for filters and for people: addresses, protocol, ports, TCP flags, length.

This is off the packet path.  The reader takes any bytes: what a truncated or malformed frame lacks stays unset.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from lbmux.addresses import Address
from lbmux.plurals import counted
from lbmux.wire.header_layouts import ETHERNET_BYTES, IPV4, IPV6, PORTS, TAG_BYTES, TCP
from lbmux.wire.numbers import (
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ICMP_PROTOCOL,
    ICMPV6_PROTOCOL,
    OFFSET_MASK,
    TAG_ETHERTYPES,
    TCP_PROTOCOL,
    UDP_PROTOCOL,
)
from lbmux.wire.packet import ethertype, ipv4_header_bytes

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
        at = ETHERNET_BYTES
        while len(frame) >= at and ethertype(frame[:at]) in TAG_ETHERTYPES:
            at += TAG_BYTES
        kind = ethertype(frame[:at]) if len(frame) >= at else 0
        if kind == ETHERTYPE_IPV4 and len(frame) >= at + IPV4.size:
            ip = IPV4.unpack(frame, at)
            ends: tuple[Address, Address] = IPv4Address(ip.source), IPv4Address(ip.destination)
            behind = None if ip.fragment & OFFSET_MASK else at + ipv4_header_bytes(frame[at:])
            return cls._of(frame, ends, ip.protocol, behind, ip.length, at)
        if kind == ETHERTYPE_IPV6 and len(frame) >= at + IPV6.size:
            ip = IPV6.unpack(frame, at)
            ends = IPv6Address(ip.source), IPv6Address(ip.destination)
            return cls._of(frame, ends, ip.next, at + IPV6.size, IPV6.size + ip.length, at)
        return cls(length=len(frame))

    @classmethod
    def _of(
        cls, frame: bytes, ends: tuple[Address, Address], protocol: int, at: int | None, length: int, start: int
    ) -> "HeaderSummary":
        """``at``: offset of the transport header, None in a later fragment."""
        if protocol not in (TCP_PROTOCOL, UDP_PROTOCOL) or at is None or len(frame) < at + PORTS.size:
            return cls(*ends, protocol, length=length, start=start)
        flags = TCP.unpack(frame, at).flags if protocol == TCP_PROTOCOL and len(frame) >= at + TCP.size else 0
        ports = PORTS.unpack(frame, at)
        return cls(*ends, protocol, ports.source_port, ports.destination_port, flags, length, start)

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
