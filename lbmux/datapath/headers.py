"""Header layouts, each written once.  Fields are as a little-endian machine loads them from the wire.

An Ethernet address is three fields because a record has no 48-bit integer; ``swap16`` and ``swap32``
(memory.py) turn a loaded number into its value.
"""

from lbmux.datapath.memory import header, layout

ETHERNET = layout(
    ("destination_low", "u4"), ("destination_high", "u2"), ("source_high", "u2"), ("source_low", "u4"), ("type", "u2")
)
"""IEEE 802.3: ``destination_low`` is its first four bytes, ``source_high`` the source's first two."""
ETHERNET_BYTES = 14

IPV4 = layout(
    ("version_ihl", "u1"), ("tos", "u1"), ("length", "u2"), ("identification", "u2"), ("fragment", "u2"),
    ("ttl", "u1"), ("protocol", "u1"), ("checksum", "u2"), ("source", "u4"), ("destination", "u4"),
)
"""RFC 791, section 3.1, without options."""
IPV4_BYTES = IPV4.itemsize

TCP = layout(
    ("ports", "u4"), ("sequence", "u4"), ("acknowledgement", "u4"), ("offset", "u1"), ("flags", "u1"),
    ("window", "u2"), ("checksum", "u2"), ("urgent", "u2"),
)
"""RFC 9293, section 3.1; ``ports`` is source and destination port in one load."""
TCP_BYTES = TCP.itemsize

UDP = layout(("ports", "u4"), ("length", "u2"), ("checksum", "u2"))
"""RFC 768."""
UDP_BYTES = UDP.itemsize

TYPE_IPV4, TYPE_IPV6, TYPE_VLAN, TYPE_QINQ = 0x0008, 0xDD86, 0x0081, 0xA888
"""Ethernet types as loaded."""

ICMP_PROTOCOL, IPIP_PROTOCOL, TCP_PROTOCOL, UDP_PROTOCOL = 1, 4, 6, 17
"""IANA protocol numbers."""

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
"""TCP flags (RFC 9293, section 3.1)."""

DONT_FRAGMENT, FRAGMENTED = 0x0040, 0xFF3F
"""As loaded: the DF bit; and the bits of ``fragment`` of which one is set in every fragment."""

ethernet, ipv4, tcp, udp = header(ETHERNET), header(IPV4), header(TCP), header(UDP)
