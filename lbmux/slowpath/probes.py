"""A probe of a host and its answer: a SYN to a port without a listener, and the host's reset (RFC 9293).

Both ports are the same. The reset acknowledges the SYN; so does a SYN-ACK, if a server listens after all.
"""

from lbmux.addresses import Address
from lbmux.wire.header_layouts import IPV4_BYTES, TCP, TCP_BYTES
from lbmux.wire.numbers import ACK, RST, SYN, TCP_PROTOCOL
from lbmux.wire.packet import ipv4_header_bytes, tcp_header, transport_packet

SEGMENT_BYTES = 128
"""How much of an answer is read: the longest IPv4 header and a TCP header without options."""
NO_ANSWER = -1


def probe(source: Address, vip: Address, port: int, sequence: int) -> bytes:
    return transport_packet(source, vip, TCP_PROTOCOL, tcp_header(port, port, SYN, sequence))


def acknowledged(data: bytes, version: int) -> int:
    """Return the sequence number of the probe that ``data`` answers, or -1.

    ``data`` is as a raw socket delivers it: IPv4 with its header, IPv6 without.
    """
    at = 0
    if version == 4:
        if len(data) < IPV4_BYTES:
            return NO_ANSWER
        at = ipv4_header_bytes(data)
    if len(data) < at + TCP_BYTES:
        return NO_ANSWER
    tcp = TCP.unpack(data, at)
    if not tcp.flags & ACK or not tcp.flags & (RST | SYN):
        return NO_ANSWER
    return int(tcp.acknowledgement - 1 & 0xFFFFFFFF)
