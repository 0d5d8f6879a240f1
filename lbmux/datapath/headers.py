"""The headers of lbmux.wire as the data path loads them: records whose fields a little-endian machine reads as numbers.

A record has no 48-bit or 128-bit integer, so an address takes two fields; both ports are loaded at once. ``swap16`` and
``swap32`` (memory.py) convert a loaded number to its value.
"""

from lbmux.datapath.memory import header, layout
from lbmux.wire import header_layouts as wire
from lbmux.wire import numbers


def as_loaded(number: int) -> int:
    """Return a 16-bit number as it is loaded from the wire."""
    return int.from_bytes(number.to_bytes(2, "big"), "little")


ETHERNET = layout(
    ("destination_low", "u4"), ("destination_high", "u2"), ("source_high", "u2"), ("source_low", "u4"), ("type", "u2")
)
"""``destination_low`` is the address's first four bytes, ``source_high`` the source's first two. It ends in padding."""
IPV4 = layout(*wire.IPV4.fields[:-2], ("source", "u4"), ("destination", "u4"))
IPV6 = layout(
    *wire.IPV6.fields[:-2],
    ("source_high", "u8"),
    ("source_low", "u8"),
    ("destination_high", "u8"),
    ("destination_low", "u8"),
)
EXTENSION = layout(*wire.EXTENSION.fields, ("fragment", "u2"))
"""``fragment`` is only in a fragment header."""
TAG = layout(*wire.TAG.fields)
GRE, GUE, GENEVE = layout(*wire.GRE.fields), layout(*wire.GUE.fields), layout(*wire.GENEVE.fields)
TCP = layout(("ports", "u4"), *wire.TCP.fields[2:])
UDP = layout(("ports", "u4"), *wire.UDP.fields[2:])
ICMP_HEADER = layout(*wire.ICMP.fields)

TYPE_IPV4, TYPE_IPV6 = as_loaded(numbers.ETHERTYPE_IPV4), as_loaded(numbers.ETHERTYPE_IPV6)
TYPE_VLAN, TYPE_QINQ = as_loaded(numbers.ETHERTYPE_VLAN), as_loaded(numbers.ETHERTYPE_QINQ)
"""Ethernet types as loaded."""

DONT_FRAGMENT, FRAGMENTED = as_loaded(numbers.DF), as_loaded(numbers.MF | numbers.OFFSET_MASK)
"""Loaded values: the DF bit; the bits of ``fragment`` of which every fragment has at least one set (MF and offset)."""

MORE_OR_OFFSET = as_loaded(numbers.V6_MF | numbers.V6_OFFSET_MASK)
"""Bits of an IPv6 fragment header that are all zero in an atomic fragment, a whole datagram (RFC 6946)."""

ethernet, tag, ipv4, ipv6, tcp, udp = map(header, (ETHERNET, TAG, IPV4, IPV6, TCP, UDP))
extension, gre, gue, geneve, icmp = map(header, (EXTENSION, GRE, GUE, GENEVE, ICMP_HEADER))
