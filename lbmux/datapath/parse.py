"""Parse: what a frame is, as far as forwarding needs to know.

First on the way of a packet.  Every bound is checked here, against the frame's end for the kernel's
verifier and against the lengths that the headers claim; the steps behind rely on it.
"""

from collections import namedtuple

from lbmux.datapath.headers import (
    DONT_FRAGMENT,
    ETHERNET_BYTES,
    FRAGMENTED,
    ICMP_PROTOCOL,
    IPV4_BYTES,
    TCP_BYTES,
    TCP_PROTOCOL,
    TYPE_IPV4,
    TYPE_QINQ,
    TYPE_VLAN,
    UDP_BYTES,
    UDP_PROTOCOL,
    ethernet,
    ipv4,
    tcp,
    udp,
)
from lbmux.datapath.memory import advance, beyond, int64, step, swap16, u16, u32, u64
from lbmux.datapath.verdicts import Verdict

TRUNCATED, NOT_IP, VLAN = int(Verdict.TRUNCATED), int(Verdict.NOT_IP), int(Verdict.VLAN)
MALFORMED, OPTIONS, FRAGMENT = int(Verdict.MALFORMED), int(Verdict.OPTIONS), int(Verdict.FRAGMENT)
ICMP, PROTOCOL = int(Verdict.ICMP), int(Verdict.PROTOCOL)
PARSED = 0

Packet = namedtuple("Packet", "verdict source_high source_low destination_high destination_low ports protocol flags")
"""``verdict`` is PARSED or says why not; addresses are 128-bit halves, ports as loaded, ``flags`` those of TCP."""


@step
def mapped(address):
    """The low half of an IPv4 address' mapped form (RFC 4291, section 2.5.5.2); the high half is zero."""
    return (u64(address) << u64(32)) | u64(0xFFFF0000)


@step
def unmapped(low):
    return u32(low >> u64(32))


@step
def _nothing(verdict):
    return Packet(int64(verdict), u64(0), u64(0), u64(0), u64(0), u32(0), int64(0), int64(0))


@step
def check_ipv4(frame, offset, end, bytes_left):
    """PARSED where an IPv4 header of 20 bytes stands at ``offset`` and the ``bytes_left`` hold what it claims."""
    if beyond(advance(frame, offset + IPV4_BYTES), end):
        return TRUNCATED
    ip = ipv4(frame, offset)
    if ip.version_ihl != 0x45:
        return OPTIONS if (ip.version_ihl >> 4) == 4 and (ip.version_ihl & 15) > 5 else MALFORMED
    length = int64(swap16(ip.length))
    if length < IPV4_BYTES or length > bytes_left:
        return MALFORMED
    return PARSED


@step
def check_ethernet(frame, end):
    """PARSED where an IPv4 packet follows the Ethernet header."""
    if beyond(advance(frame, ETHERNET_BYTES), end):
        return TRUNCATED
    kind = ethernet(frame, 0).type
    if kind != TYPE_IPV4:
        return VLAN if kind == TYPE_VLAN or kind == TYPE_QINQ else NOT_IP  # noqa: SIM109 (a tuple is no BPF)
    return PARSED


@step
def parse(frame, end, bytes_left):
    """The IPv4 packet with TCP or UDP behind the Ethernet header, in a frame of that and ``bytes_left`` more."""
    verdict = check_ethernet(frame, end)
    if verdict != PARSED:
        return _nothing(verdict)
    return parse_ipv4(frame, ETHERNET_BYTES, end, bytes_left)


@step
def parse_ipv4(frame, offset, end, bytes_left):
    """The IPv4 packet with TCP or UDP at ``offset``, of which there are ``bytes_left`` bytes."""
    verdict = check_ipv4(frame, offset, end, bytes_left)
    if verdict != PARSED:
        return _nothing(verdict)
    ip = ipv4(frame, offset)
    length = int64(swap16(ip.length))
    if (ip.fragment & FRAGMENTED) != 0:
        return _nothing(FRAGMENT)
    ports, flags = u32(0), int64(0)
    transport = offset + IPV4_BYTES
    if ip.protocol == TCP_PROTOCOL:
        if length < IPV4_BYTES + TCP_BYTES:
            return _nothing(MALFORMED)
        if beyond(advance(frame, transport + TCP_BYTES), end):
            return _nothing(TRUNCATED)
        ports, flags = tcp(frame, transport).ports, int64(tcp(frame, transport).flags)
    elif ip.protocol == UDP_PROTOCOL:
        if length < IPV4_BYTES + UDP_BYTES:
            return _nothing(MALFORMED)
        if beyond(advance(frame, transport + UDP_BYTES), end):
            return _nothing(TRUNCATED)
        ports = udp(frame, transport).ports
    else:
        return _nothing(ICMP if ip.protocol == ICMP_PROTOCOL else PROTOCOL)
    return Packet(
        int64(PARSED), u64(0), mapped(ip.source), u64(0), mapped(ip.destination), ports, int64(ip.protocol), flags
    )


@step
def destination_port(ports):
    return u16(ports >> u32(16))


@step
def source_port(ports):
    return u16(ports & u32(0xFFFF))


@step
def may_not_be_fragmented(ip):
    return (ip.fragment & DONT_FRAGMENT) != 0
