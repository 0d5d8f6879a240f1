"""A probe of a host, and what answers it: a SYN to a port where nobody listens, and the host's reset (RFC 9293).

The port is the same at both ends.  A reset, or the SYN-ACK of one who listens after all, acknowledges the SYN.
"""

from lbmux.addresses import Address
from lbmux.slowpath.resets import ACK, HEADER, RST, SYN, TCP_BYTES
from lbmux.wire.internet_checksum import TCP, with_checksum
from lbmux.wire.packet import IPV4_BYTES, ip_packet

SEGMENT_BYTES = 128
"""As much of an answer as is read: the longest IPv4 header and a TCP header without options."""
NO_ANSWER = -1


def probe(source: Address, vip: Address, port: int, sequence: int) -> bytes:
    header = HEADER.pack(port, port, sequence, 0, TCP_BYTES // 4 << 4, SYN, 0, 0, 0)
    return ip_packet(source, vip, TCP, with_checksum(source, vip, TCP, header))


def acknowledged(data: bytes, version: int) -> int:
    """The sequence number of the probe that this answers, as a raw socket gives it (IPv4 with its header), or -1."""
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
