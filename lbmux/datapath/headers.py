"""Header layouts of the data path, each defined once. Fields are as a little-endian machine loads them from the wire.

An Ethernet address takes two fields, because a record has no 48-bit integer. ``swap16`` and ``swap32`` (memory.py)
convert a loaded number to its value.
"""

from lbmux.datapath.memory import header, layout

ETHERNET = layout(
    ("destination_low", "u4"), ("destination_high", "u2"), ("source_high", "u2"), ("source_low", "u4"), ("type", "u2")
)
"""IEEE 802.3: ``destination_low`` is its first four bytes, ``source_high`` the source's first two."""
ETHERNET_BYTES = 14

IPV4 = layout(
    ("version_ihl", "u1"),
    ("tos", "u1"),
    ("length", "u2"),
    ("identification", "u2"),
    ("fragment", "u2"),
    ("ttl", "u1"),
    ("protocol", "u1"),
    ("checksum", "u2"),
    ("source", "u4"),
    ("destination", "u4"),
)
"""RFC 791, section 3.1, without options."""
IPV4_BYTES = IPV4.itemsize

IPV6 = layout(
    ("version_class_label", "u4"),
    ("length", "u2"),
    ("next", "u1"),
    ("hops", "u1"),
    ("source_high", "u8"),
    ("source_low", "u8"),
    ("destination_high", "u8"),
    ("destination_low", "u8"),
)
"""RFC 8200, section 3; ``length`` is the payload length."""
IPV6_BYTES = IPV6.itemsize

EXTENSION = layout(("next", "u1"), ("length", "u1"), ("fragment", "u2"))
"""RFC 8200, section 4: ``length`` in units of 8 bytes, the first not counted; ``fragment`` in a fragment header."""

TAG = layout(("control", "u2"), ("type", "u2"))
"""IEEE 802.1Q: the fields after the Ethernet type of a tagged frame."""
TAG_BYTES = TAG.itemsize

GRE = layout(("flags_version", "u2"), ("protocol", "u2"))
"""RFC 2784, without checksum; ``protocol`` is an Ethernet type."""
GUE = layout(("version_length", "u1"), ("protocol", "u1"), ("flags", "u2"))
"""draft-ietf-intarea-gue, variant 0: ``version_length`` has the length of the optional fields in units of 4 bytes."""
GENEVE = layout(("version_length", "u1"), ("flags", "u1"), ("protocol", "u2"), ("network", "u4"))
"""RFC 8926: ``version_length`` has the length of the options in units of 4 bytes, ``network`` the VNI."""

TCP = layout(
    ("ports", "u4"),
    ("sequence", "u4"),
    ("acknowledgement", "u4"),
    ("offset", "u1"),
    ("flags", "u1"),
    ("window", "u2"),
    ("checksum", "u2"),
    ("urgent", "u2"),
)
"""RFC 9293, section 3.1; ``ports`` loads source and destination port at once."""
TCP_BYTES = TCP.itemsize

UDP = layout(("ports", "u4"), ("length", "u2"), ("checksum", "u2"))
"""RFC 768."""
UDP_BYTES = UDP.itemsize

ICMP_HEADER = layout(("type", "u1"), ("code", "u1"), ("checksum", "u2"))
"""RFC 792, RFC 4443: the first fields of every message."""

TYPE_IPV4, TYPE_IPV6, TYPE_VLAN, TYPE_QINQ = 0x0008, 0xDD86, 0x0081, 0xA888
"""Ethernet types as loaded."""

ICMP_PROTOCOL, IPIP_PROTOCOL, TCP_PROTOCOL, UDP_PROTOCOL = 1, 4, 6, 17
IPV6_PROTOCOL, GRE_PROTOCOL, ICMPV6_PROTOCOL = 41, 47, 58
"""IANA protocol numbers."""

HOP_BY_HOP, ROUTING, FRAGMENT_HEADER, AUTHENTICATION, DESTINATION_OPTIONS = 0, 43, 44, 51, 60
"""IPv6 extension headers (RFC 8200, section 4; RFC 4302)."""

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
"""TCP flags (RFC 9293, section 3.1)."""

DONT_FRAGMENT, FRAGMENTED = 0x0040, 0xFF3F
"""As loaded: the DF bit; the bits of ``fragment`` of which every fragment has at least one set (MF and offset)."""

MORE_OR_OFFSET = 0xF9FF
"""Bits of an IPv6 fragment header that are all zero in an atomic fragment, a whole datagram (RFC 6946)."""

ethernet, tag, ipv4, ipv6, tcp, udp = map(header, (ETHERNET, TAG, IPV4, IPV6, TCP, UDP))
extension, gre, gue, geneve, icmp = map(header, (EXTENSION, GRE, GUE, GENEVE, ICMP_HEADER))
