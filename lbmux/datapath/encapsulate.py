"""Encapsulate: the packet goes into an outer IPv4 header, towards the backend's host.

The last step at a mux: IP in IP (RFC 2003).  The outer header has TTL 64, the inner TOS, DF and
identification, and a checksum that takes three additions, since the sum of its constant words
stands in the backend's row.
"""

from lbmux.datapath.checksums import fold
from lbmux.datapath.headers import (
    DONT_FRAGMENT,
    ETHERNET_BYTES,
    IPIP_PROTOCOL,
    IPV4_BYTES,
    TYPE_IPV4,
    ethernet,
    ipv4,
)
from lbmux.datapath.memory import advance, beyond, int64, step, swap16, u16, u32, u64
from lbmux.datapath.parse import unmapped
from lbmux.datapath.verdicts import Verdict
from lbmux.datapath.world import frame, frame_end, grow

FORWARDED, TOO_BIG, NO_ROOM = int(Verdict.FORWARDED), int(Verdict.TOO_BIG), int(Verdict.NO_ROOM)
NO_NEIGHBOUR = int(Verdict.NO_NEIGHBOUR)
TTL = 64


@step
def write_ethernet(start, source_mac, destination_mac):
    """``source_mac`` and ``destination_mac`` are 48-bit numbers as loaded."""
    eth = ethernet(start, 0)
    eth.destination_low, eth.destination_high = u32(destination_mac), u16(destination_mac >> u64(32))
    eth.source_high, eth.source_low = u16(source_mac), u32(source_mac >> u64(16))
    eth.type = TYPE_IPV4


@step
def encapsulate(world, start, backend):
    """Grow the frame and write Ethernet and outer IPv4 header; the verdict, and the outer packet's bytes."""
    inner = ipv4(start, ETHERNET_BYTES)
    tos, length, identification = inner.tos, int64(swap16(inner.length)) + IPV4_BYTES, inner.identification
    fragment = u16(inner.fragment & DONT_FRAGMENT)
    if length > int64(backend.mtu):
        return TOO_BIG, length
    destination_mac, source_mac = backend.destination_mac, backend.source_mac
    if destination_mac == u64(0):
        return NO_NEIGHBOUR, length
    if not grow(world, int64(IPV4_BYTES)):
        return NO_ROOM, length
    start = frame(world)
    if beyond(advance(start, ETHERNET_BYTES + 2 * IPV4_BYTES), frame_end(world)):
        return NO_ROOM, length
    write_ethernet(start, source_mac, destination_mac)
    outer = ipv4(start, ETHERNET_BYTES)
    outer.version_ihl, outer.tos, outer.length = 0x45, tos, swap16(u16(length))
    outer.identification, outer.fragment = identification, fragment
    outer.ttl, outer.protocol = TTL, IPIP_PROTOCOL
    outer.source, outer.destination = unmapped(backend.local_low), unmapped(backend.remote_low)
    variable = u32(length) + u32(tos) + u32(swap16(identification)) + u32(swap16(fragment))
    outer.checksum = swap16(u16(~fold(u32(backend.checksum + variable))))
    return FORWARDED, length


def constant_sum(source: int, destination: int) -> int:
    """The part of the outer header's checksum that a backend's row holds; addresses as 32-bit values."""
    words = (source >> 16) + (source & 0xFFFF) + (destination >> 16) + (destination & 0xFFFF)
    return words + 0x4500 + (TTL << 8 | IPIP_PROTOCOL)
