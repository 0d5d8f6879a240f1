"""Internet checksums: computed in full if the sender left one unfinished (RFC 1071), else updated (RFC 1624).

Sums are over words as loaded. Ones' complement addition gives the same result in either byte order (RFC 1071, section
2B), so nothing is swapped.
"""

from lbmux.datapath.headers import ipv4, ipv6, tcp, udp
from lbmux.datapath.memory import advance, int64, layout, rows, step, swap16, u16, u32, u64
from lbmux.wire.header_layouts import IPV6_BYTES
from lbmux.wire.numbers import TCP_PROTOCOL

word_row, byte_row = rows(layout(("value", "u2"))), rows(layout(("value", "u1")))


@step
def fold(total):
    """Fold a 32-bit sum into 16 bits of ones' complement arithmetic."""
    total = u32(total & u32(0xFFFF)) + u32(total >> u32(16))
    return u16(u32(total & u32(0xFFFF)) + u32(total >> u32(16)))


@step
def fold_wide(total):
    """Fold a sum of words of 32 bits, below 2**47, into 16 bits."""
    total = (total + ((total & u64(0xFFFF)) << u64(16))) >> u64(16)
    total = (total & u64(0xFFFF)) + (total >> u64(16))
    return u16(total + (total >> u64(16)))


@step
def sum_of(start, length):
    """Return the folded sum of ``length`` bytes."""
    total = u64(0)
    for index in range(length >> 1):
        total += u64(word_row(start, index).value)
    if length & 1:
        total += u64(byte_row(start, length - 1).value)
    total = (total & u64(0xFFFFFFFF)) + (total >> u64(32))
    return fold(u32(total & u64(0xFFFFFFFF)) + u32(total >> u64(32)))


@step
def finish_checksum(frame, packet):
    """Finish a TCP or UDP checksum. The sender wrote only the pseudo-header's sum and left the rest to a device."""
    if packet.family == 4:
        whole = int64(swap16(ipv4(frame, packet.network).length))
    else:
        whole = int64(swap16(ipv6(frame, packet.network).length)) + IPV6_BYTES
    transport = packet.transport
    checksum = u16(~sum_of(advance(frame, transport), packet.network + whole - transport))
    if packet.protocol == TCP_PROTOCOL:
        tcp(frame, transport).checksum = checksum
    else:
        udp(frame, transport).checksum = checksum if checksum != 0 else u16(0xFFFF)


@step
def replace(checksum, before, after):
    """Return ``checksum`` after the 32 bits ``before`` have become ``after`` (RFC 1624, equation 3)."""
    total = u32(u16(~checksum))
    total += u32(u16(~u16(before & u32(0xFFFF)))) + u32(u16(~u16(before >> u32(16))))
    total += u32(u16(after & u32(0xFFFF))) + u32(u16(after >> u32(16)))
    return u16(~fold(total))


@step
def replace_wide(checksum, before, after):
    """Return ``checksum`` after the 64 bits ``before`` have become ``after``."""
    checksum = replace(checksum, u32(before), u32(after))
    return replace(checksum, u32(before >> u64(32)), u32(after >> u64(32)))
