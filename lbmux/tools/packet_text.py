"""The packet that `lbmux explain` explains: from text, from a captured frame, and as bytes."""

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

import numpy as np

from lbmux.addresses import Address, port_to_wire, to_pair
from lbmux.datapath.headers import ACK, ETHERNET, ETHERNET_BYTES, IPV4, IPV6, SYN, TCP, TYPE_IPV4, TYPE_IPV6, UDP
from lbmux.errors import LbmuxError
from lbmux.tables.mux_tables import PROTOCOLS
from lbmux.tracing.header_summary import HeaderSummary

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
class Packet:
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
    def of_frame(cls, frame: bytes) -> "Packet":
        """The packet of a captured frame.  PacketError if it is not IP."""
        found = HeaderSummary.read(frame)
        if found.source is None or found.destination is None:
            raise PacketError(str(found), "not an IP packet")
        ends = found.source, found.source_port or 0, found.destination, found.port or 0
        return cls(*ends, found.name, bool(found.flags & SYN), caught=frame)

    @classmethod
    def parse(cls, text: str, opens: bool = False, length: int | None = None) -> "Packet":
        found = TEXT.fullmatch(text)
        if found is None:
            raise PacketError(text, f"should be {FORM}, as in '198.51.100.7:40000 > 192.0.2.1:80/tcp'")
        try:
            ends = [ip_address(found[name].strip("[]")) for name in ("source", "vip")]
        except ValueError as error:
            raise PacketError(text, str(error)) from error
        source, vip = ends
        if source.version != vip.version:
            raise PacketError(text, "the addresses must be both IPv4 or both IPv6")
        ports = [int(found[name]) for name in ("source_port", "port")]
        if max(ports) > 65535:
            raise PacketError(text, "a port must be 0 to 65535")
        packet = cls(source, ports[0], vip, ports[1], found["protocol"] or "tcp", opens, length)
        least = len(packet.frame(minimal=True)) - ETHERNET_BYTES
        if length is not None and not least <= length <= 65535:
            raise PacketError(text, f"length {length}: must be {least} to 65535 bytes")
        return packet

    def frame(self, minimal: bool = False) -> bytes:
        """The frame as a mux would receive it.  Checksums, which the data path ignores, are 0."""
        if self.caught is not None:
            return self.caught
        eth = np.zeros(1, ETHERNET)
        transport = np.zeros(1, TCP if self.protocol == "tcp" else UDP)
        transport["ports"] = port_to_wire(self.source_port) | port_to_wire(self.port) << 16
        if self.protocol == "tcp":
            transport["offset"], transport["flags"] = 0x50, SYN if self.opens else ACK
        is_ipv4 = isinstance(self.vip, IPv4Address)
        least = (IPV4 if is_ipv4 else IPV6).itemsize + transport.itemsize
        length = least if minimal else self.length or least
        eth["type"] = TYPE_IPV4 if is_ipv4 else TYPE_IPV6
        ip = self._ipv4(length) if is_ipv4 else self._ipv6(length)
        return eth.tobytes()[:ETHERNET_BYTES] + ip + transport.tobytes() + bytes(length - least)

    def _ipv4(self, length: int) -> bytes:
        ip = np.zeros(1, IPV4)
        ip["version_ihl"], ip["ttl"], ip["protocol"] = 0x45, 64, PROTOCOLS[self.protocol]
        ip["length"] = port_to_wire(length)  # 16 bits in network byte order, like a port
        ip["source"], ip["destination"] = (int.from_bytes(a.packed, "little") for a in (self.source, self.vip))
        return ip.tobytes()

    def _ipv6(self, length: int) -> bytes:
        ip = np.zeros(1, IPV6)
        ip["version_class_label"], ip["hops"], ip["next"] = 0x60, 64, PROTOCOLS[self.protocol]
        ip["length"] = port_to_wire(length - IPV6.itemsize)
        ip["source_high"], ip["source_low"] = to_pair(self.source)
        ip["destination_high"], ip["destination_low"] = to_pair(self.vip)
        return ip.tobytes()

    def __str__(self) -> str:
        if self.caught is not None:
            return str(HeaderSummary.read(self.caught)).rpartition(", ")[0]
        source, vip = (f"[{a}]" if isinstance(a, IPv6Address) else str(a) for a in (self.source, self.vip))
        return f"{source}:{self.source_port} > {vip}:{self.port}/{self.protocol}"
