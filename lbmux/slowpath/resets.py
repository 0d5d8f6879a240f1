"""TCP resets for connections that no host has, and probes that make a client state its sequence numbers."""

import struct

from lbmux.slowpath.slow_path_flow import Flow
from lbmux.wire.internet_checksum import TCP, with_checksum
from lbmux.wire.packet import Packet, ip_packet

TCP_BYTES, FLAGS_AT, FIN, SYN, RST, ACK = 20, 13, 1, 2, 4, 16
HEADER = struct.Struct("!HHIIBBHHH")


def opens_connection(packet: Packet) -> bool:
    """Whether a TCP packet, which has its ports, is a client's first: a SYN without ACK."""
    flags = packet.payload[FLAGS_AT] if len(packet.payload) > FLAGS_AT else 0
    return flags & (SYN | ACK) == SYN


def reset(packet: Packet) -> bytes | None:
    """Build the answer to a segment of a connection that does not exist (RFC 9293, section 3.10.7.1).

    Return None for a reset, and for anything that is not a whole TCP segment.
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


def outside_of_window(flow: Flow) -> bytes:
    """Build a challenge-ACK probe: an empty segment that makes a flow's client acknowledge what it has received.

    A segment outside the window is answered this way (RFC 9293, section 3.10.7.4, first), and this one is almost
    certainly outside: a window covers at most a small part of the sequence space. A client that is still opening the
    connection answers with a reset and continues.
    """
    header = HEADER.pack(flow.vip_port, flow.client_port, 0, 0, TCP_BYTES // 4 << 4, ACK, 0, 0, 0)
    return ip_packet(flow.vip, flow.client, TCP, with_checksum(flow.vip, flow.client, TCP, header))
