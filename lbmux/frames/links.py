"""Link types of captures (tcpdump.org/linktypes.html): the link header's length and the packet's Ethernet type.

captured_frames.py replaces these headers with an Ethernet header, so that the data path sees one format.
"""

from lbmux.datapath.headers import TYPE_IPV4, TYPE_IPV6
from lbmux.datapath.memory import at_address, int64, layout, rows, step, swap32, u64

ETHERNET, RAW, RAW_IPV4, RAW_IPV6, LOOPBACK, PPP, PPP_DIRECTION, PPP_PPPD, PPPOE, COOKED, COOKED2, UNKNOWN_LINK = range(
    12
)
"""Kinds of link header. RAW to PPPOE precede a bare IP packet; the cooked kinds may have VLAN tags."""
LINKS = {
    0: LOOPBACK, 1: ETHERNET, 9: PPP, 12: RAW, 14: RAW, 50: PPP, 51: PPPOE, 101: RAW, 104: PPP, 108: LOOPBACK,
    113: COOKED, 166: PPP_PPPD, 204: PPP_DIRECTION, 228: RAW_IPV4, 229: RAW_IPV6, 276: COOKED2,
}  # fmt: skip
LINK_ETHERNET, LINK_RAW = 1, 101
KNOWN_LINKS = "Ethernet, raw IP, Linux cooked, loopback or PPP"

LOOPBACK_BYTES = 4
"""NULL and LOOP: an address family, in the byte order of the machine that captured it or of the network."""
COOKED_BYTES, COOKED_TYPE_AT = 16, 14
"""SLL: what `tcpdump -i any` writes."""
COOKED2_BYTES, COOKED2_TYPE_AT = 20, 0
PPPOE_BYTES = 6
"""RFC 2516, section 4."""
FAMILY_IPV4, FAMILIES_IPV6 = 2, (10, 23, 24, 28, 30)
"""AF_INET everywhere; AF_INET6 on Linux, Windows, NetBSD and OpenBSD, FreeBSD, Darwin."""
PPP_IPV4, PPP_IPV6 = 0x21, 0x57
"""Protocol numbers of PPP (RFC 1332, 5072)."""
ALL_STATIONS, UNNUMBERED = 0xFF, 0x03
"""Address and control of PPP in HDLC-like framing (RFC 1662, section 3.1), which may be omitted."""
CISCO_UNICAST, CISCO_BROADCAST = 0x0F, 0x8F
"""Addresses of Cisco HDLC, in which the protocol field is an Ethernet type."""
PPP_MOST_BYTES = 4

byte_at = rows(layout(("value", "u1")))
half_at = rows(layout(("value", "u2")))
word_at = rows(layout(("value", "u4")))


def is_bare(kind: int) -> bool:
    """Return whether frames of this kind are IP packets without link addresses or VLAN tags."""
    return RAW <= kind <= PPPOE


@step
def _byte(source, at):  # type: ignore[no-untyped-def]
    return byte_at(at_address(source + u64(at)), 0).value


@step
def _half(source, at):  # type: ignore[no-untyped-def]
    return half_at(at_address(source + u64(at)), 0).value


@step
def _raw_type(source, captured):  # type: ignore[no-untyped-def]
    version = 0 if captured == 0 else _byte(source, 0) >> 4
    return TYPE_IPV4 if version == 4 else TYPE_IPV6 if version == 6 else 0


@step
def _family_type(source):  # type: ignore[no-untyped-def]
    family = word_at(at_address(source), 0).value
    family = family if family < 1 << 16 else swap32(family)
    return TYPE_IPV4 if family == FAMILY_IPV4 else TYPE_IPV6 if family in FAMILIES_IPV6 else 0


@step
def _ppp(source, at):  # type: ignore[no-untyped-def]
    """Parse a PPP header. The protocol's first byte may be omitted (RFC 1661, section 6.5); the next is then odd."""
    address = _byte(source, at)
    if address in (CISCO_UNICAST, CISCO_BROADCAST):
        return at + 4, int64(_half(source, at + 2))
    if address == ALL_STATIONS and _byte(source, at + 1) == UNNUMBERED:
        at += 2
    protocol = int64(_byte(source, at))
    at += 1
    if protocol & 1 == 0:
        protocol = protocol << 8 | int64(_byte(source, at))
        at += 1
    return at, int64(TYPE_IPV4 if protocol == PPP_IPV4 else TYPE_IPV6 if protocol == PPP_IPV6 else 0)


@step
def _before(kind):  # type: ignore[no-untyped-def]
    """Return the bytes that must be present: a fixed-size header, or what precedes PPP's plus the longest of those."""
    if kind <= RAW_IPV6:
        return int64(0)
    if kind == LOOPBACK:
        return int64(LOOPBACK_BYTES)
    if kind in (COOKED, COOKED2):
        return int64(COOKED_BYTES if kind == COOKED else COOKED2_BYTES)
    extra = PPPOE_BYTES if kind == PPPOE else 2 if kind == PPP_PPPD else 1 if kind == PPP_DIRECTION else 0
    return int64(extra + PPP_MOST_BYTES)


@step
def link_header(source, captured, kind):  # type: ignore[no-untyped-def]
    """Return the size of the link header at the address ``source``, and the Ethernet type of the packet after it.

    The type is as loaded; 0 if the packet is not IP. A truncated header takes up all captured bytes.
    """
    before = _before(kind)
    if int64(captured) < before:
        return int64(captured), int64(0)
    if kind <= RAW_IPV6:
        known = TYPE_IPV4 if kind == RAW_IPV4 else TYPE_IPV6
        return before, int64(_raw_type(source, captured) if kind == RAW else known)
    if kind == LOOPBACK:
        return before, int64(_family_type(source))
    if kind in (COOKED, COOKED2):
        return before, int64(_half(source, COOKED_TYPE_AT if kind == COOKED else COOKED2_TYPE_AT))
    return _ppp(source, before - PPP_MOST_BYTES)
