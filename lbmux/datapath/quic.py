"""QUIC: select the server that the connection id names, so that a client may change its address (RFC 9000, section 9).

This is the plaintext form of draft-ietf-quic-load-balancers: a connection id begins with an octet whose first three
bits name the configuration, followed by the server id of up to eight bytes.
"""

from lbmux.datapath.match import match
from lbmux.datapath.memory import advance, beyond, header, int64, layout, step, u16, u64, unlikely
from lbmux.datapath.tables import SERVER_ID
from lbmux.wire.header_layouts import UDP_BYTES
from lbmux.wire.numbers import UDP_PROTOCOL

byte, word, wide = (header(layout(("value", kind))) for kind in ("u1", "u4", "u8"))

LONG_HEADER = 0x80
SHORT_ID, LONG_ID = 1, 6
"""Offsets of the destination connection id after the UDP header: with a short and with a long header."""
VERSION_1, VERSION_2 = 0x01000000, 0xCF43336B
"""Versions as loaded (RFC 9000, section 15, and RFC 9369, section 3.1)."""
TYPE_MASK, INITIAL_1, INITIAL_2 = 0x30, 0x00, 0x10
"""The type of a packet with a long header, and an Initial's in each version."""
NEEDED_BYTES = LONG_ID + 1 + 8
MOST_BYTES = 8


@step
def named_server(context, setting, start, end, packet, index, service):
    """Return the backend that the packet's destination connection id names, or -1."""
    size = int64(service.quic_bytes)
    if not unlikely(size != 0) or packet.protocol != UDP_PROTOCOL:
        return int64(-1)
    at = packet.transport + UDP_BYTES
    if beyond(advance(start, at + NEEDED_BYTES), end):
        return int64(-1)
    is_long = (byte(start, at).value & LONG_HEADER) != 0
    if is_long and int64(byte(start, at + LONG_ID - 1).value) < size + 1:
        return int64(-1)
    if is_long:
        octet, value = byte(start, at + LONG_ID).value, wide(start, at + LONG_ID + 1).value
    else:
        octet, value = byte(start, at + SHORT_ID).value, wide(start, at + SHORT_ID + 1).value
    if (octet >> 5) != service.quic_rotation:
        return int64(-1)
    unused = u64(8 * (MOST_BYTES - size)) & u64(63)
    named = u64(value << unused) >> unused
    return match(context, setting, SERVER_ID, named, u64(0), u16(index), int64(UDP_PROTOCOL))


@step
def may_be_initial(start, end, packet):
    """Return whether a datagram has a long header, and is an Initial or of an unknown version."""
    at = packet.transport + UDP_BYTES
    if beyond(advance(start, at + NEEDED_BYTES), end):
        return False
    octet, version = byte(start, at).value, word(start, at + 1).value
    kind = octet & TYPE_MASK
    is_other = (version == VERSION_1 and kind != INITIAL_1) or (version == VERSION_2 and kind != INITIAL_2)
    return (octet & LONG_HEADER) != 0 and not is_other
