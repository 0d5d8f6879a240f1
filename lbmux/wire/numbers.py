"""Protocol numbers as values, as in RFCs and IANA's registries. lbmux.datapath.headers has some of them as loaded."""

ETHERTYPE_IPV4, ETHERTYPE_ARP, ETHERTYPE_IPV6, ETHERTYPE_VLAN, ETHERTYPE_QINQ = 0x0800, 0x0806, 0x86DD, 0x8100, 0x88A8
"""IEEE 802.3, 802.1Q and 802.1ad."""
ETHERTYPES = {4: ETHERTYPE_IPV4, 6: ETHERTYPE_IPV6}
"""Ethernet types by the IP version."""
TAG_ETHERTYPES = (ETHERTYPE_VLAN, ETHERTYPE_QINQ)

ICMP_PROTOCOL, IPIP_PROTOCOL, TCP_PROTOCOL, UDP_PROTOCOL = 1, 4, 6, 17
IPV6_PROTOCOL, GRE_PROTOCOL, ICMPV6_PROTOCOL = 41, 47, 58
"""IANA protocol numbers."""
IP_IN_IP = {4: IPIP_PROTOCOL, 6: IPV6_PROTOCOL}
"""The protocol number of IP in IP, by the inner packet's IP version (RFC 2003, RFC 2473)."""
ICMP_BY_VERSION = {4: ICMP_PROTOCOL, 6: ICMPV6_PROTOCOL}

HOP_BY_HOP, ROUTING, FRAGMENT_HEADER, AUTHENTICATION, DESTINATION_OPTIONS = 0, 43, 44, 51, 60
EXTENSIONS = (HOP_BY_HOP, ROUTING, FRAGMENT_HEADER, AUTHENTICATION, DESTINATION_OPTIONS)
"""IPv6 extension headers (RFC 8200, section 4; RFC 4302)."""

IPV4_WITHOUT_OPTIONS = 0x45
"""IPv4's ``version_ihl``: version 4, and a header of five words of 4 bytes (RFC 791)."""
DF, MF, OFFSET_MASK, OFFSET_UNIT_BYTES = 0x4000, 0x2000, 0x1FFF, 8
"""IPv4's ``fragment`` field: don't fragment, more fragments, and the offset in units of 8 bytes (RFC 791)."""
V6_MF, V6_OFFSET_MASK = 0x0001, 0xFFF8
"""The same in an IPv6 fragment header, whose masked field is the offset in bytes (RFC 8200, section 4.5)."""

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
"""TCP flags (RFC 9293, section 3.1)."""

LOOPBACK = 1
"""Linux's index of the interface lo: ``interface`` of a backend on the mux's own host, which is an edge."""
