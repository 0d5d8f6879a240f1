"""TCP resets for connections that no host has, and probes that make a client state its sequence numbers."""

from lbmux.slowpath.slow_path_flow import Flow
from lbmux.wire.header_layouts import TCP, TCP_BYTES
from lbmux.wire.numbers import ACK, FIN, RST, SYN, TCP_PROTOCOL
from lbmux.wire.packet import Packet, tcp_header, transport_packet


def opens_connection(packet: Packet) -> bool:
    """Return whether a TCP packet, which has its ports, is a client's first: a SYN without ACK."""
    flags_at = TCP.at("flags")
    return len(packet.payload) > flags_at and packet.payload[flags_at] & (SYN | ACK) == SYN


def reset(packet: Packet) -> bytes | None:
    """Build the answer to a segment of a connection that does not exist (RFC 9293, section 3.10.7.1).

    Return None for a reset, and for anything that is not a whole TCP segment.
    """
    segment = packet.payload
    if packet.protocol != TCP_PROTOCOL or packet.is_fragment or len(segment) < TCP_BYTES:
        return None
    tcp = TCP.unpack(segment)
    if tcp.flags & RST:
        return None
    length = len(segment) - (tcp.offset >> 4) * 4 + bool(tcp.flags & SYN) + bool(tcp.flags & FIN)
    end = tcp.sequence + max(length, 0) & 0xFFFFFFFF
    sequence, acknowledgement, flags = (tcp.acknowledgement, 0, RST) if tcp.flags & ACK else (0, end, RST | ACK)
    header = tcp_header(tcp.destination_port, tcp.source_port, flags, sequence, acknowledgement)
    return transport_packet(packet.destination, packet.source, TCP_PROTOCOL, header)


def outside_of_window(flow: Flow) -> bytes:
    """Build a challenge-ACK probe: an empty segment that makes a flow's client acknowledge what it has received.

    A segment outside the window is answered this way (RFC 9293, section 3.10.7.4, first), and this one is almost
    certainly outside: a window covers at most a small part of the sequence space. A client that is still opening the
    connection answers with a reset and continues.
    """
    return transport_packet(flow.vip, flow.client, TCP_PROTOCOL, tcp_header(flow.vip_port, flow.client_port, ACK))
