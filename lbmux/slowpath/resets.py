"""A reset for a connection that nobody has, as the host would send it that the packet was meant for."""

import struct

from lbmux.slowpath.checksums import TCP, with_checksum
from lbmux.slowpath.packets import Packet, ip_packet

TCP_BYTES, FIN, SYN, RST, ACK = 20, 1, 2, 4, 16
HEADER = struct.Struct("!HHIIBBHHH")


def reset(packet: Packet) -> bytes | None:
    """The answer to a segment of a connection that does not exist (RFC 9293, section 3.10.7.1).

    None where none is due: for a reset, and for what is no whole TCP segment.
    """
    segment = packet.payload
    if packet.protocol != TCP or packet.is_fragment or len(segment) < TCP_BYTES:
        return None
    source, destination, sequence, acknowledged, offset, flags, *_ = HEADER.unpack_from(segment)
    if flags & RST:
        return None
    length = len(segment) - (offset >> 4) * 4 + bool(flags & SYN) + bool(flags & FIN)
    end = sequence + max(length, 0) & 0xFFFFFFFF
    ours, theirs, kind = (acknowledged, 0, RST) if flags & ACK else (0, end, RST | ACK)
    header = HEADER.pack(destination, source, ours, theirs, TCP_BYTES // 4 << 4, kind, 0, 0, 0)
    answer = with_checksum(packet.destination, packet.source, TCP, header)
    return ip_packet(packet.destination, packet.source, TCP, answer)
