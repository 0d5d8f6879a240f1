"""Ping: the mux's answers for a VIP (RFC 792, RFC 4443 section 4.2).

The answer is the request with swapped addresses and another type. Identifier, sequence number and data stay.
"""

from lbmux.wire.header_layouts import ICMP, ICMP_ECHO
from lbmux.wire.icmp_types import ECHO_REPLIES, ECHO_REQUESTS
from lbmux.wire.internet_checksum import is_valid
from lbmux.wire.packet import Packet, icmp_packet


def is_echo_request(packet: Packet) -> bool:
    """Return whether the packet is a valid echo request. The answer's new checksum would hide a damaged request."""
    if not packet.is_icmp or packet.is_fragment or len(packet.payload) < ICMP_ECHO.size:
        return False
    message = ICMP.unpack(packet.payload)
    if (message.type, message.code) != (ECHO_REQUESTS[packet.version], 0):
        return False
    return is_valid(packet.source, packet.destination, packet.protocol, packet.payload)


def echo_reply(request: Packet) -> bytes:
    """Build the answer to an echo request."""
    message = ICMP.replace(request.payload, type=ECHO_REPLIES[request.version])
    return icmp_packet(request.destination, request.source, message, traffic_class=request.traffic_class & 0xFC)
