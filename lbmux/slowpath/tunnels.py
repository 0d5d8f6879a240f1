"""Tunnelled packets of every kind that a mux makes (lbmux.datapath.encapsulate): their headers and inner packets."""

import struct
from typing import NamedTuple

from lbmux.addresses import Address, port_from_wire
from lbmux.config.models import Config, kind_of
from lbmux.targets.regions import Tables
from lbmux.wire.internet_checksum import UDP
from lbmux.wire.packet import TYPE_IPV4, TYPE_IPV6, Packet, read_frame, read_ip

IPIP, IPV6, GRE = 4, 41, 47
GRE_BYTES, UDP_BYTES, GUE_BYTES, GENEVE_BYTES = 4, 8, 4, 8


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


def carriers(config: Config) -> dict[Address, set[Carrier]]:
    """Return the kinds of outer packets from a mux to each host; empty for packets without a tunnel."""
    found: dict[Address, set[Carrier]] = {}
    tunnel = config.tunnel
    for service in config.services:
        kinds: dict[str, Carrier] = {
            "ipip": Carrier(IPIP if service.vip.version == 4 else IPV6), "gre": Carrier(GRE),
            "gue0": Carrier(UDP, tunnel.gue_port), "gue1": Carrier(UDP, tunnel.gue_port),
            "geneve": Carrier(UDP, tunnel.geneve_port),
        }  # fmt: skip
        for backend in service.backends:
            of_host, kind = found.setdefault(backend.tunnel_to, set()), kind_of(config, service, backend)
            if kind != "direct":
                of_host.add(kinds[kind])
    return found


def carrier(outer: Packet) -> Carrier:
    return Carrier(outer.protocol, outer.ports[1] if outer.protocol == UDP and outer.ports else 0)


def inside(outer: Packet, gue_port: int, geneve_port: int, *, is_quoted: bool = False) -> Packet | None:
    """Return the inner packet, or None if it is not a tunnel packet or cannot be parsed.

    ``is_quoted``: it is in an ICMP error, so it may be truncated or be the first fragment of an outer packet.
    """
    payload = outer.payload
    if outer.offset_bytes or (outer.more and not is_quoted):
        return None

    def read(data: bytes) -> Packet | None:
        return read_ip(data, truncated=is_quoted, link=outer.link)

    if outer.protocol in (IPIP, IPV6):
        return read(payload)
    if outer.protocol == GRE and payload[:2] == b"\0\0" and payload[2:4] in map(_type, (TYPE_IPV4, TYPE_IPV6)):
        return read(payload[GRE_BYTES:])
    if outer.protocol != UDP or len(payload) < UDP_BYTES + GENEVE_BYTES:
        return None
    port, first = int.from_bytes(payload[2:4], "big"), payload[UDP_BYTES]
    if port == gue_port:
        shim = 0 if first >> 6 == 1 else GUE_BYTES + (first & 31) * 4
        return read(payload[UDP_BYTES + shim :])
    if port == geneve_port:
        return read(payload[UDP_BYTES + GENEVE_BYTES + (first & 63) * 4 :])
    return None


def inner_frame(frame: bytes, ports: Ports) -> bytes | None:
    """Return the frame of a tunnel's inner packet, or None as in ``inside``."""
    outer = read_frame(frame)
    packet = None if outer is None else inside(outer, *ports)
    if packet is None:
        return None
    return packet.link[:-2] + _type(TYPE_IPV4 if packet.version == 4 else TYPE_IPV6) + packet.data


def _type(number: int) -> bytes:
    return struct.pack("!H", number)
