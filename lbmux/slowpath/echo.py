"""Ping: the mux's answers for a VIP (RFC 792, RFC 4443 section 4.2).

The answer is the request with swapped addresses and another type. Identifier, sequence number and data stay.
"""

from lbmux.wire.internet_checksum import is_valid
from lbmux.wire.packet import Packet, icmp_packet

ECHO_REQUEST, ECHO_REPLY = 8, 0
V6_ECHO_REQUEST, V6_ECHO_REPLY = 128, 129
ECHO_BYTES = 8


def is_echo_request(packet: Packet) -> bool:
    """Return whether the packet is a valid echo request. The answer's new checksum would hide a damaged request."""
    kind = ECHO_REQUEST if packet.version == 4 else V6_ECHO_REQUEST
    whole = not packet.is_fragment and len(packet.payload) >= ECHO_BYTES
    if not packet.is_icmp or not whole or packet.payload[:2] != bytes([kind, 0]):
        return False
    return is_valid(packet.source, packet.destination, packet.protocol, packet.payload)


def echo_reply(request: Packet) -> bytes:
    """Build the answer to an echo request."""
    kind = ECHO_REPLY if request.version == 4 else V6_ECHO_REPLY
    message = bytes([kind, 0]) + request.payload[2:]
    return icmp_packet(request.destination, request.source, message, traffic_class=request.traffic_class & 0xFC)
