"""The packet that `lbmux explain` explains: from text, from a captured frame, and as bytes."""

import re
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address

from lbmux.addresses import Address
from lbmux.errors import LbmuxError
from lbmux.tables.mux_rows import PROTOCOLS
from lbmux.tracing.header_summary import HeaderSummary
from lbmux.wire.header_layouts import IP_BYTES, TCP_BYTES, UDP_BYTES
from lbmux.wire.numbers import ACK, SYN
from lbmux.wire.packet import ethernet_header, ip_packet, tcp_header, udp_header

TEXT = re.compile(
    r"\s*(?P<source>[\d.]+|\[[\da-fA-F:.]+\]):(?P<source_port>\d+)\s*>\s*"
    r"(?P<vip>[\d.]+|\[[\da-fA-F:.]+\]):(?P<port>\d+)(/(?P<protocol>tcp|udp))?\s*"
)
FORM = "SRC:PORT > VIP:PORT/tcp"


class PacketError(LbmuxError):
    """``text`` does not describe a packet that can be built."""

    text: str
    reason: str

    def __str__(self) -> str:
        return f"{self.text!r}: {self.reason}"


@dataclass(frozen=True)
class ClientPacket:
    """A client's packet.  ``length``: bytes of the IP packet, None for the shortest possible."""

    source: Address
    source_port: int
    vip: Address
    port: int
    protocol: str = "tcp"
    opens: bool = False
    """Whether it is a SYN, which opens a connection."""
    length: int | None = None
    caught: bytes | None = field(default=None, repr=False)
    """The frame itself, if it was captured.  A captured frame without ports has ports 0."""

    @classmethod
    def of_frame(cls, frame: bytes) -> "ClientPacket":
        """Return the packet of a captured frame.  Raise PacketError if it is not IP."""
        header = HeaderSummary.read(frame)
        if header.source is None or header.destination is None:
            raise PacketError(str(header), "not an IP packet")
        ends = header.source, header.source_port or 0, header.destination, header.port or 0
        return cls(*ends, header.name, bool(header.flags & SYN), caught=frame)

    @classmethod
    def parse(cls, text: str, opens: bool = False, length: int | None = None) -> "ClientPacket":
        """Parse `CLIENT:PORT > VIP:PORT[/PROTOCOL]`; raise PacketError. ``length``: the IP packet's length in bytes."""
        match = TEXT.fullmatch(text)
        if match is None:
            raise PacketError(text, f"should be {FORM}, as in '198.51.100.7:40000 > 192.0.2.1:80/tcp'")
        try:
            ends = [ip_address(match[name].strip("[]")) for name in ("source", "vip")]
        except ValueError as error:
            raise PacketError(text, str(error)) from error
        source, vip = ends
        if source.version != vip.version:
            raise PacketError(text, "the addresses must be both IPv4 or both IPv6")
        ports = [int(match[name]) for name in ("source_port", "port")]
        if max(ports) > 65535:
            raise PacketError(text, "a port must be 0 to 65535")
        packet = cls(source, ports[0], vip, ports[1], match["protocol"] or "tcp", opens, length)
        if length is not None and not packet.least_bytes <= length <= 65535:
            raise PacketError(text, f"length {length}: must be {packet.least_bytes} to 65535 bytes")
        return packet

    @property
    def least_bytes(self) -> int:
        """The length of the shortest IP packet: its headers."""
        return IP_BYTES[self.vip.version] + (TCP_BYTES if self.protocol == "tcp" else UDP_BYTES)

    def frame(self) -> bytes:
        """Build the frame as a mux would receive it. The transport checksum, which the data path ignores, is zero."""
        if self.caught is not None:
            return self.caught
        payload = bytes((self.length or self.least_bytes) - self.least_bytes)
        ports = self.source_port, self.port
        is_tcp = self.protocol == "tcp"
        header = tcp_header(*ports, SYN if self.opens else ACK) if is_tcp else udp_header(*ports, len(payload))
        ends, number = (self.source, self.vip), PROTOCOLS[self.protocol]
        return ethernet_header(self.vip.version) + ip_packet(*ends, number, header + payload, dont_fragment=False)

    def __str__(self) -> str:
        if self.caught is not None:
            return str(HeaderSummary.read(self.caught)).rpartition(", ")[0]
        source, vip = (f"[{a}]" if isinstance(a, IPv6Address) else str(a) for a in (self.source, self.vip))
        return f"{source}:{self.source_port} > {vip}:{self.port}/{self.protocol}"
