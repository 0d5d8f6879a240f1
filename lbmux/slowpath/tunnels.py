"""Tunnelled packets of every kind that a mux makes (lbmux.datapath.encapsulate): their headers and inner packets."""

from collections import Counter
from typing import NamedTuple

from lbmux.addresses import Address, port_from_wire
from lbmux.config.models import Backend, Config, Service, kind_of
from lbmux.config.traffic_models import Tunnel
from lbmux.targets.regions import Tables
from lbmux.wire.header_layouts import (
    ETHERNET_BYTES,
    GENEVE,
    GRE,
    GUE,
    IPV4,
    IPV6_BYTES,
    PROTOCOL_AT,
    UDP,
    UDP_BYTES,
)
from lbmux.wire.numbers import ETHERTYPES, GRE_PROTOCOL, IP_IN_IP, MF, OFFSET_MASK, UDP_PROTOCOL
from lbmux.wire.packet import (
    Packet,
    ip_source_bytes,
    ipv4_header_bytes,
    read_frame,
    read_ip,
    source_bytes,
    with_ethertype,
)


class Ports(NamedTuple):
    """The UDP ports of tunnels."""

    gue: int
    geneve: int

    @classmethod
    def of(cls, tables: Tables) -> "Ports":
        row = tables.settings[0]
        return cls(*(port_from_wire(int(row[name])) for name in ("gue_port", "geneve_port")))


IANA_PORTS = Ports(6080, 6081)


class Carrier(NamedTuple):
    """The kind of an outer packet: its protocol, and its UDP destination port, or 0 if it is not UDP."""

    protocol: int
    port: int = 0


class Carriers:
    """The kinds of outer packets from a mux to each host; a new configuration costs what changed in it."""

    def __init__(self) -> None:
        self._tunnel: Tunnel | None = None
        self._services: dict[str, Service] = {}
        self._uses: dict[Address, Counter[Carrier | None]] = {}
        """The number of backends by host and kind; None: packets without a tunnel."""

    def of(self, config: Config) -> dict[Address, set[Carrier]]:
        """Return the kinds by host; empty for packets without a tunnel."""
        if config.tunnel != self._tunnel:
            self._tunnel, self._services, self._uses = config.tunnel, {}, {}
        old, self._services = self._services, {service.name: service for service in config.services}
        for name, service in old.items():
            if self._services.get(name) is not service:
                self._count(config, service, -1)
        for name, service in self._services.items():
            if old.get(name) is not service:
                self._count(config, service, 1)
        return {host: {kind for kind, count in uses.items() if count and kind} for host, uses in self._uses.items()}

    def _count(self, config: Config, service: Service, by: int) -> None:
        for backend in service.backends:
            uses = self._uses.setdefault(backend.tunnel_to, Counter())
            uses[_carrier_to(config, service, backend)] += by
            if by < 0 and not +uses:
                del self._uses[backend.tunnel_to]


def carriers(config: Config) -> dict[Address, set[Carrier]]:
    """Return the kinds of outer packets from a mux to each host; empty for packets without a tunnel."""
    return Carriers().of(config)


def _carrier_to(config: Config, service: Service, backend: Backend) -> Carrier | None:
    """Return the kind of outer packets to a backend; None: without a tunnel."""
    kind = kind_of(config, service, backend)
    if kind == "direct":
        return None
    if kind == "ipip":
        return Carrier(IP_IN_IP[service.vip.version])
    if kind == "gre":
        return Carrier(GRE_PROTOCOL)
    return Carrier(UDP_PROTOCOL, config.tunnel.geneve_port if kind == "geneve" else config.tunnel.gue_port)


def carrier(outer: Packet) -> Carrier:
    return Carrier(outer.protocol, outer.ports[1] if outer.protocol == UDP_PROTOCOL and outer.ports else 0)


def inside(outer: Packet, gue_port: int, geneve_port: int, *, is_quoted: bool = False) -> Packet | None:
    """Return the inner packet, or None if it is not a tunnel packet or cannot be parsed.

    ``is_quoted``: it is in an ICMP error, so it may be truncated or be the first fragment of an outer packet.
    """
    if outer.offset_bytes or (outer.more and not is_quoted):
        return None
    start = _header_bytes(outer.protocol, outer.payload, gue_port, geneve_port)
    return None if start is None else read_ip(outer.payload[start:], truncated=is_quoted, link=outer.link)


def source_inside(frame: bytes, gue_port: int, geneve_port: int) -> bytes:
    """Return the source address of a tunnel's inner packet, 4 or 16 bytes, without parsing the packets.

    Return the outer source for a packet without a whole inner packet, no bytes for a frame that is tagged or not IP.
    """
    outer = source_bytes(frame)
    version, packet = {4: 4, 16: 6}.get(len(outer), 0), frame[ETHERNET_BYTES:]
    if not version or (version == 4 and IPV4.unpack(packet).fragment & (MF | OFFSET_MASK)):
        return outer
    payload = packet[ipv4_header_bytes(packet) if version == 4 else IPV6_BYTES :]
    start = _header_bytes(packet[PROTOCOL_AT[version]], payload, gue_port, geneve_port)
    return outer if start is None else ip_source_bytes(payload[start:]) or outer


def _header_bytes(protocol: int, payload: bytes, gue_port: int, geneve_port: int) -> int | None:
    """Return the length of the tunnel's header in an outer packet's payload, or None if it is not a tunnel packet."""
    if protocol in IP_IN_IP.values():
        return 0
    if protocol == GRE_PROTOCOL and len(payload) >= GRE.size:
        gre = GRE.unpack(payload)
        return GRE.size if not gre.flags_version and gre.protocol in ETHERTYPES.values() else None
    if protocol != UDP_PROTOCOL or len(payload) < UDP_BYTES + GENEVE.size:
        return None
    port = UDP.unpack(payload).destination_port
    start = _gue_bytes(payload) if port == gue_port else _geneve_bytes(payload) if port == geneve_port else None
    return None if start is None else UDP_BYTES + start


def _gue_bytes(datagram: bytes) -> int:
    """Return the length of the GUE header in a UDP datagram. Variant 1 has none."""
    first = GUE.unpack(datagram, UDP_BYTES).version_length
    return 0 if first >> 6 == 1 else GUE.size + int(first & 31) * 4


def _geneve_bytes(datagram: bytes) -> int:
    return GENEVE.size + int(GENEVE.unpack(datagram, UDP_BYTES).version_length & 63) * 4


def inner_frame(frame: bytes, ports: Ports) -> bytes | None:
    """Return the frame of a tunnel's inner packet, or None as in ``inside``."""
    outer = read_frame(frame)
    packet = None if outer is None else inside(outer, *ports)
    if packet is None:
        return None
    return with_ethertype(packet.link, packet.version) + packet.data
