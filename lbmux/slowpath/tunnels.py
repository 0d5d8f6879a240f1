"""What is inside a tunnelled packet, of every kind that a mux makes (lbmux.datapath.encapsulate)."""

import struct
from typing import NamedTuple

from lbmux.addresses import port_from_wire
from lbmux.control.watching import without_tunnel
from lbmux.datapath.verdicts import Verdict
from lbmux.slowpath.checksums import UDP
from lbmux.slowpath.packets import TYPE_IPV4, TYPE_IPV6, Packet, read_frame, read_ip
from lbmux.targets.regions import Tables

IPIP, IPV6, GRE = 4, 41, 47
GRE_BYTES, UDP_BYTES, GUE_BYTES, GENEVE_BYTES = 4, 8, 4, 8


class Ports(NamedTuple):
    """UDP ports that tunnels come to."""

    gue: int
    geneve: int

    @classmethod
    def of(cls, tables: Tables) -> "Ports":
        row = tables.settings[0]
        return cls(*(port_from_wire(int(row[name])) for name in ("gue_port", "geneve_port")))


def inside(outer: Packet, gue_port: int, geneve_port: int) -> Packet | None:
    """The inner packet, or None where it is no tunnel's or cannot be read."""
    payload = outer.payload
    if outer.is_fragment:
        return None
    if outer.protocol in (IPIP, IPV6):
        return read_ip(payload, link=outer.link)
    if outer.protocol == GRE and payload[:2] == b"\0\0" and payload[2:4] in map(_type, (TYPE_IPV4, TYPE_IPV6)):
        return read_ip(payload[GRE_BYTES:], link=outer.link)
    if outer.protocol != UDP or len(payload) < UDP_BYTES + GENEVE_BYTES:
        return None
    port, first = int.from_bytes(payload[2:4], "big"), payload[UDP_BYTES]
    if port == gue_port:
        shim = 0 if first >> 6 == 1 else GUE_BYTES + (first & 31) * 4
        return read_ip(payload[UDP_BYTES + shim :], link=outer.link)
    if port == geneve_port:
        return read_ip(payload[UDP_BYTES + GENEVE_BYTES + (first & 63) * 4 :], link=outer.link)
    return None


def inner_frame(frame: bytes, ports: Ports) -> bytes | None:
    """The frame of the packet that a tunnel brings, or None as in ``inside``."""
    outer = read_frame(frame)
    packet = None if outer is None else inside(outer, *ports)
    if packet is None:
        return None
    return packet.link[:-2] + _type(TYPE_IPV4 if packet.version == 4 else TYPE_IPV6) + packet.data


def flow_at_agent(came: bytes, left: bytes | None, verdict: Verdict, ports: Ports) -> bytes | None:
    """The frame of client and VIP: what a tunnel brings, or a reply with the VIP as its source; None: as it came."""
    if left is not None:
        return left if verdict in (Verdict.REPLIED, Verdict.HAIRPIN) else without_tunnel(left, came)
    return inner_frame(came, ports)


def _type(number: int) -> bytes:
    return struct.pack("!H", number)
