"""A probe of a host and its answer: a SYN to a port without a listener, and the host's reset (RFC 9293).

Both ports are the same. The reset acknowledges the SYN; so does a SYN-ACK, if a server listens after all.
"""

from lbmux.addresses import Address
from lbmux.slowpath.resets import ACK, HEADER, RST, SYN, TCP_BYTES
from lbmux.wire.internet_checksum import TCP, with_checksum
from lbmux.wire.packet import IPV4_BYTES, ip_packet

SEGMENT_BYTES = 128
"""How much of an answer is read: the longest IPv4 header and a TCP header without options."""
NO_ANSWER = -1


def probe(source: Address, vip: Address, port: int, sequence: int) -> bytes:
    header = HEADER.pack(port, port, sequence, 0, TCP_BYTES // 4 << 4, SYN, 0, 0, 0)
    return ip_packet(source, vip, TCP, with_checksum(source, vip, TCP, header))


def acknowledged(data: bytes, version: int) -> int:
    """Return the sequence number of the probe that ``data`` answers, or -1.

    ``data`` is as a raw socket delivers it: IPv4 with its header, IPv6 without.
    """
    at = 0
    if version == 4:
        if len(data) < IPV4_BYTES:
            return NO_ANSWER
        at = (data[0] & 15) * 4
    if len(data) < at + TCP_BYTES:
        return NO_ANSWER
    _, _, _, acknowledgment, _, flags, *_ = HEADER.unpack_from(data, at)
    if not flags & ACK or not flags & (RST | SYN):
        return NO_ANSWER
    return int(acknowledgment - 1 & 0xFFFFFFFF)
