"""The layout of each header, written once. The data path builds its own structs from them (lbmux.datapath.headers)."""

from lbmux.wire.layout import Layout

ETHERNET = Layout(("destination", "S6"), ("source", "S6"), ("type", "u2"))
"""IEEE 802.3."""
ETHERNET_BYTES = ETHERNET.size

TAG = Layout(("control", "u2"), ("type", "u2"))
"""IEEE 802.1Q: the fields after the Ethernet type of a tagged frame."""
TAG_BYTES, MOST_TAGS = TAG.size, 2
"""A frame with more tags is not parsed."""

ARP = Layout(
    ("hardware", "u2"), ("protocol", "u2"), ("hardware_bytes", "u1"), ("protocol_bytes", "u1"), ("operation", "u2"),
    ("sender_mac", "S6"), ("sender", "S4"), ("target_mac", "S6"), ("target", "S4"),
)  # fmt: skip
"""RFC 826, for Ethernet and IPv4."""

IPV4 = Layout(
    ("version_ihl", "u1"), ("tos", "u1"), ("length", "u2"), ("identification", "u2"), ("fragment", "u2"),
    ("ttl", "u1"), ("protocol", "u1"), ("checksum", "u2"), ("source", "S4"), ("destination", "S4"),
)  # fmt: skip
"""RFC 791, section 3.1, without options."""
IPV4_BYTES = IPV4.size

IPV6 = Layout(
    ("version_class_label", "u4"), ("length", "u2"), ("next", "u1"), ("hops", "u1"),
    ("source", "S16"), ("destination", "S16"),
)  # fmt: skip
"""RFC 8200, section 3; ``length`` is the payload length."""
IPV6_BYTES = IPV6.size

IP = {4: IPV4, 6: IPV6}
IP_BYTES = {4: IPV4_BYTES, 6: IPV6_BYTES}
PROTOCOL_AT = {4: IPV4.at("protocol"), 6: IPV6.at("next")}
"""Maps the IP version to the fixed header, its length, and the offset of the field that names the next header."""

EXTENSION = Layout(("next", "u1"), ("length", "u1"))
"""RFC 8200, section 4: ``length`` in units of 8 bytes, the first not counted."""
EXTENSION_LEAST_BYTES, MOST_EXTENSIONS = 8, 8
"""A longer chain of extension headers is not parsed, since it would cost too much CPU time."""
FRAGMENT = Layout(("next", "u1"), ("reserved", "u1"), ("fragment", "u2"), ("identification", "u4"))
"""RFC 8200, section 4.5: the extension header of a fragment."""
FRAGMENT_BYTES = FRAGMENT.size

TCP = Layout(
    ("source_port", "u2"), ("destination_port", "u2"), ("sequence", "u4"), ("acknowledgement", "u4"),
    ("offset", "u1"), ("flags", "u1"), ("window", "u2"), ("checksum", "u2"), ("urgent", "u2"),
)  # fmt: skip
"""RFC 9293, section 3.1; the upper half of ``offset`` is the header's length in units of 4 bytes."""
TCP_BYTES = TCP.size

UDP = Layout(("source_port", "u2"), ("destination_port", "u2"), ("length", "u2"), ("checksum", "u2"))
"""RFC 768."""
UDP_BYTES = UDP.size

PORTS = Layout(*UDP.fields[:2])
"""TCP and UDP begin with both ports."""

ICMP = Layout(("type", "u1"), ("code", "u1"), ("checksum", "u2"))
"""RFC 792, RFC 4443: the first fields of every message."""
ICMP_ECHO = Layout(*ICMP.fields, ("identifier", "u2"), ("sequence", "u2"))
"""RFC 792, RFC 4443 section 4: an echo request or reply."""
ICMP_ERROR = Layout(*ICMP.fields, ("value", "u4"))
"""RFC 792, RFC 1191, RFC 4443: ``value`` is the MTU, or unused. The quoted packet follows."""
ICMP_BYTES = ICMP_ERROR.size
NEIGHBOUR = Layout(*ICMP.fields, ("flags", "u4"), ("target", "S16"))
"""RFC 4861, sections 4.3 and 4.4: a neighbour solicitation or advertisement. Options follow."""
LINK_OPTION = Layout(("type", "u1"), ("length", "u1"), ("mac", "S6"))
"""RFC 4861, section 4.6.1: the option that gives an Ethernet address; ``length`` is in units of 8 bytes."""

DNS = Layout(
    ("identifier", "u2"), ("flags", "u2"), ("questions", "u2"), ("answers", "u2"), ("authorities", "u2"),
    ("additional", "u2"),
)  # fmt: skip
"""RFC 1035, section 4.1.1; the lowest four bits of ``flags`` are the response code."""
DNS_QUESTION = Layout(("type", "u2"), ("class", "u2"))
"""RFC 1035, section 4.1.2: the fields after the name."""
DNS_RECORD = Layout(("type", "u2"), ("class", "u2"), ("ttl", "u4"), ("length", "u2"))
"""RFC 1035, section 4.1.3: the fields after the name."""
DNS_CLIENT_SUBNET = Layout(
    ("option", "u2"), ("length", "u2"), ("family", "u2"), ("source_prefix", "u1"), ("scope_prefix", "u1"),
)  # fmt: skip
"""RFC 7871, section 6: the option's fields before the address; ``length`` excludes the first four bytes."""

GRE = Layout(("flags_version", "u2"), ("protocol", "u2"))
"""RFC 2784, without checksum; ``protocol`` is an Ethernet type."""
GUE = Layout(("version_length", "u1"), ("protocol", "u1"), ("flags", "u2"))
"""draft-ietf-intarea-gue, variant 0: ``version_length`` has the length of the optional fields in units of 4 bytes."""
GENEVE = Layout(("version_length", "u1"), ("flags", "u1"), ("protocol", "u2"), ("network", "u4"))
"""RFC 8926: ``version_length`` has the length of the options in units of 4 bytes, ``network`` the VNI."""
