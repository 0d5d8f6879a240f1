"""What is inside a tunnelled packet, of every kind that a mux makes (lbmux.datapath.encapsulate)."""

import struct

from lbmux.slowpath.checksums import UDP
from lbmux.slowpath.packets import TYPE_IPV4, TYPE_IPV6, Packet, read_ip

IPIP, IPV6, GRE = 4, 41, 47
GRE_BYTES, UDP_BYTES, GUE_BYTES, GENEVE_BYTES = 4, 8, 4, 8


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


def _type(number: int) -> bytes:
    return struct.pack("!H", number)
