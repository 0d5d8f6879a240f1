"""ICMP errors about a flow: finding the flow in the quoted packet, and translating the quote for the server.

A router that could not forward a server's packet (VIP -> client) quotes its beginning, with at least 8 bytes of the
transport header. That identifies the flow, and so the backend that sent the packet.
"""

from lbmux.addresses import Address
from lbmux.slowpath.icmp_errors import is_error
from lbmux.slowpath.slow_path_flow import Flow
from lbmux.wire.header_layouts import ICMP_BYTES, IP, IPV4, PORTS
from lbmux.wire.internet_checksum import CHECKSUM_AT, adjusted, is_valid
from lbmux.wire.numbers import UDP_PROTOCOL
from lbmux.wire.packet import Packet, icmp_packet, read_ip


def quote_in(error: Packet) -> Packet | None:
    """Return the packet that a complete and valid ICMP error quotes, or None."""
    if error.is_fragment or not is_error(error) or len(error.payload) < ICMP_BYTES:
        return None
    if not is_valid(error.source, error.destination, error.protocol, error.payload):
        return None
    quote = read_ip(error.payload[ICMP_BYTES:], truncated=True)
    return quote if quote is not None and quote.version == error.version else None


def flow_of(error: Packet) -> Flow | None:
    """Return the flow that an ICMP error to a VIP is about, or None."""
    quote = quote_in(error)
    # A quote of another source's packet is an error, or an attempt to reach a server that it should not reach.
    if quote is None or quote.source != error.destination or quote.ports is None:
        return None
    vip_port, client_port = quote.ports
    return Flow(quote.protocol, quote.destination, client_port, quote.source, vip_port)


def translate_error(error: Packet, dip: Address, dip_port: int) -> bytes | None:
    """Translate an error for the server: to the DIP, about a packet from the DIP and the server's own port.

    The rest of the quote stays, except the checksums that cover the changes.
    """
    quote = quote_in(error)
    if quote is None or quote.ports is None or dip.version != error.version:
        return None
    message = _translated(error, quote, "source", dip, dip_port or quote.ports[0])
    return icmp_packet(error.source, dip, message, traffic_class=error.traffic_class, hops=error.hops)


def flow_of_own(error: Packet) -> Flow | None:
    """Return the flow of an ICMP error that this host sent about a client's packet to a DIP, or None."""
    quote = quote_in(error)
    if quote is None or quote.ports is None or quote.source != error.destination:
        return None
    return Flow(quote.protocol, quote.source, quote.ports[0], quote.destination, quote.ports[1])


def translate_own_error(error: Packet, vip: Address, vip_port: int) -> bytes | None:
    """Translate an error for the client: from the VIP, about the packet that the client sent to the VIP."""
    quote = quote_in(error)
    if quote is None or quote.ports is None or vip.version != error.version:
        return None
    message = _translated(error, quote, "destination", vip, vip_port)
    return icmp_packet(vip, error.destination, message, traffic_class=error.traffic_class, hops=error.hops)


def _translated(error: Packet, quote: Packet, end: str, address: Address, port: int) -> bytes:
    """Return the ICMP message with another source or destination, as ``end`` names it, in its quote."""
    data, at, port_at = bytearray(quote.data), IP[quote.version].at(end), quote.transport + PORTS.at(f"{end}_port")
    changed_port = port.to_bytes(2, "big")
    old, old_port = _put(data, at, address.packed), _put(data, port_at, changed_port)
    if quote.version == 4:
        _adjust(data, IPV4.at("checksum"), old, address.packed)
    covered = quote.transport + CHECKSUM_AT[quote.protocol]
    is_absent = quote.protocol == UDP_PROTOCOL and data[covered : covered + 2] == b"\0\0"
    if len(data) >= covered + 2 and not is_absent:
        _adjust(data, covered, old + old_port, address.packed + changed_port)
    behind = error.payload[ICMP_BYTES + len(quote.data) :]  # extensions (RFC 4884)
    return error.payload[:ICMP_BYTES] + bytes(data) + behind


def _put(data: bytearray, at: int, value: bytes) -> bytes:
    """Overwrite bytes, and return those that were there."""
    old = bytes(data[at : at + len(value)])
    data[at : at + len(value)] = value
    return old


def _adjust(data: bytearray, at: int, before: bytes, after: bytes) -> None:
    value = int.from_bytes(data[at : at + 2], "big")
    _put(data, at, adjusted(value, before, after).to_bytes(2, "big"))
