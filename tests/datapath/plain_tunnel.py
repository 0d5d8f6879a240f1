"""Tunnels by struct and slices: what a mux puts before a packet, and what an agent takes off."""

import struct
from dataclasses import dataclass
from typing import NamedTuple

from lbmux.datapath.verdicts import Verdict
from tests.datapath import plain_packet as packets
from tests.datapath.plain_packet import GRE, IPIP, IPV6, TYPE_IPV4, TYPE_IPV6, UDP, Packet

GUE_PORT, GENEVE_PORT = 6080, 6081
KINDS = ("ipip", "gue1", "gue0", "gre", "geneve", "direct")
"""Kinds of tunnels in the order of their numbers."""


@dataclass(frozen=True)
class Inner:
    """What the outer header takes over: ``fragment`` is its DF bit, ``label`` the IPv6 flow label."""

    length: int
    tos: int
    identification: bytes
    fragment: int
    label: int | None

    @classmethod
    def of(cls, frame: bytes, packet: Packet) -> "Inner":
        at = frame[packet.network :]
        if packet.is_ipv6:
            word = struct.unpack("!I", at[:4])[0]
            length = 40 + struct.unpack("!H", at[4:6])[0]
            return cls(length, word >> 20 & 0xFF, b"\0\0", 0x40, word & 0xFFFFF)
        return cls(struct.unpack("!H", at[2:4])[0], at[1], at[4:6], at[6] & 0x40, None)


def shim(kind: str, is_ipv6: bool, length: int, entropy: int) -> bytes:
    """Return the bytes between outer and inner header; ``length`` is the inner packet's."""
    ethernet_type, protocol = (TYPE_IPV6, IPV6) if is_ipv6 else (TYPE_IPV4, IPIP)
    inside = {
        "ipip": b"", "gue1": b"", "gue0": bytes([0, protocol, 0, 0]), "gre": struct.pack("!HH", 0, ethernet_type),
        "geneve": struct.pack("!BBHI", 0, 0, ethernet_type, 0),
    }[kind]  # fmt: skip
    if kind in ("ipip", "gre"):
        return inside
    port = GENEVE_PORT if kind == "geneve" else GUE_PORT
    return struct.pack("!HHHH", 0xC000 | entropy & 0x3FFF, port, 8 + len(inside) + length, 0) + inside


def overhead_bytes(kind: str, outer_is_ipv6: bool) -> int:
    return 0 if kind == "direct" else (40 if outer_is_ipv6 else 20) + len(shim(kind, False, 0, 0))


def encapsulate(
    frame: bytes, packet: Packet, kind: str, source_mac: bytes, destination_mac: bytes, local: bytes, remote: bytes,
    entropy: int, spread: bool = False,
) -> bytes:  # fmt: skip
    """TOS (ECN and all), DF and identification of the inner header, TTL 64; tags stay.  RFC 2003, 2473, 4213, 6040."""
    frame, inner = packets.decrement_ttl(frame, packet), Inner.of(frame, packet)
    macs, tags = destination_mac + source_mac, frame[12 : packet.network - 2]
    if kind == "direct":
        return macs + frame[12:]
    between = shim(kind, packet.is_ipv6, inner.length, entropy)
    protocol = {"ipip": IPV6 if packet.is_ipv6 else IPIP, "gre": GRE}.get(kind, UDP)
    if spread:
        local = local[:-2] + bytes([entropy & 0xFF, entropy >> 8 & 0xFF])
    if len(remote) == 4:
        length = inner.length + 20 + len(between)
        head = struct.pack("!BBH", 0x45, inner.tos, length) + inner.identification
        head += bytes([inner.fragment, 0, 64, protocol])
        outer = head + struct.pack("!H", packets.checksum(head + b"\0\0" + local + remote)) + local + remote
        kind_bytes = b"\x08\x00"
    else:
        label = entropy & 0xFFFFF if inner.label is None else inner.label
        word = 6 << 28 | inner.tos << 20 | label
        outer = struct.pack("!IHBB", word, inner.length + len(between), protocol, 64) + local + remote
        kind_bytes = b"\x86\xdd"
    return macs + tags + kind_bytes + outer + between + frame[packet.network :]


class Tunnel(NamedTuple):
    """Return the inner packet's start and latest end, its Ethernet type, and the outer header's ECN bits."""

    offset: int
    end: int
    type: int
    ecn: int
    source: bytes
    destination: bytes


def open_tunnel(frame: bytes, plain: bool) -> Tunnel | Verdict:
    header = packets.ethernet(frame, plain)
    if isinstance(header, Verdict):
        return header
    network, kind = header
    outer = packets.ip_headers(frame, network, len(frame), kind, plain)
    if isinstance(outer, Verdict):
        return Verdict.NOT_TUNNELLED if outer == Verdict.FRAGMENT else outer
    inside = _inside(frame, outer, plain)
    if inside is None or inside[1] not in (TYPE_IPV4, TYPE_IPV6):
        return Verdict.NOT_TUNNELLED
    source, destination = packets.addresses_at(frame, network, kind)
    tos = frame[network + 1] if kind == TYPE_IPV4 else struct.unpack("!I", frame[network : network + 4])[0] >> 20
    return Tunnel(inside[0], outer.end, inside[1], tos & 3, source, destination)


def _inside(frame: bytes, outer: packets.Headers, plain: bool) -> tuple[int, int] | None:
    """(where the inner packet begins, its Ethernet type)"""
    by_protocol = {IPIP: TYPE_IPV4, IPV6: TYPE_IPV6}
    at = outer.transport
    if outer.protocol == GRE:
        if len(frame) < at + 4 or frame[at : at + 2] != b"\0\0":
            return None
        return at + 4, int.from_bytes(frame[at + 2 : at + 4])
    if outer.protocol != UDP:
        return at, by_protocol.get(outer.protocol, 0)
    if len(frame) < at + 12:
        return None
    port, inside = int.from_bytes(frame[at + 2 : at + 4]), frame[at + 8 :]
    if port == GUE_PORT:
        if inside[0] >> 6 == 1:
            return at + 8, TYPE_IPV4 if inside[0] >> 4 == 4 else TYPE_IPV6
        more = 4 * (inside[0] & 31)
        if inside[0] >> 5 or (more and plain):
            return None
        return at + 12 + more, by_protocol.get(inside[1], 0)
    if port == GENEVE_PORT and len(inside) >= 8:
        more = 4 * (inside[0] & 63)
        if inside[0] >> 6 or (more and plain):
            return None
        return at + 16 + more, int.from_bytes(inside[2:4])
    return None


def carry_mark(frame: bytes, packet: Packet, outer: int) -> bytes | None:
    """The frame with the inner ECN bits that RFC 6040, figure 4, has for the outer ones; None: drop it."""
    at = packet.network
    word = struct.unpack("!I", frame[at : at + 4])[0]
    shift = 20 if packet.is_ipv6 else 16
    inner = word >> shift & 3
    if outer == 3 and inner == 0:
        return None
    after = 3 if outer == 3 else 1 if (outer, inner) == (1, 2) else inner
    if after == inner:
        return frame
    changed = packets.put(frame, at, struct.pack("!I", word & ~(3 << shift) | after << shift))
    return changed if packet.is_ipv6 else packets.header_checked(frame, changed, at)
