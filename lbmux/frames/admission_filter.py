"""A classic BPF program that admits a random share of the packets to some VIPs, before they reach a packet ring.

The packets that it drops cost a mux in user space no CPU time.
"""

from collections.abc import Mapping

from lbmux.addresses import Address
from lbmux.frames.socket_filters import (
    AND,
    AT_LEAST,
    EQUAL,
    HEADER_LENGTH,
    JUMP,
    LOAD_BYTE,
    LOAD_BYTE_BEHIND,
    LOAD_HALF,
    LOAD_WORD,
    RETURN,
    SET_INDEX,
    Line,
    Step,
    resolved,
)
from lbmux.wire.header_layouts import ETHERNET, ETHERNET_BYTES, IPV4, IPV6, IPV6_BYTES, PROTOCOL_AT, TCP
from lbmux.wire.numbers import ACK, ETHERTYPE_IPV4, ETHERTYPE_IPV6, SYN, TCP_PROTOCOL

RANDOM = 0xFFFFF000 + 56
"""SKF_AD_OFF + SKF_AD_RANDOM (linux/filter.h): a load from there is a random number of 32 bits."""
MOST_VIPS = 128
"""The most VIPs of a program: a packet to any other address passes through all comparisons.  The kernel takes 4096
instructions, and may have memory for fewer (net.core.optmem_max)."""
WORD_BYTES = 4


def admission(shares: Mapping[Address, tuple[float, float]], otherwise: tuple[Line, ...]) -> tuple[Line, ...]:
    """Return a program that admits these shares, from 0 to 1, of (new flows, other packets) to at most MOST_VIPS VIPs.

    Admitted packets, and packets to other addresses, continue at ``otherwise``.
    """
    first = list(shares.items())[:MOST_VIPS]
    steps: list[Step] = [
        (LOAD_HALF, "", "", ETHERNET.at("type")),
        (EQUAL, "", "not IPv4", ETHERTYPE_IPV4), (JUMP, "to 4", "", 0), "not IPv4",
        (EQUAL, "", "neither", ETHERTYPE_IPV6), (JUMP, "to 6", "", 0), "neither", (JUMP, "pass", "", 0),
    ]  # fmt: skip
    for version in (4, 6):
        steps.append(f"to {version}")
        for vip, share in first:
            if vip.version == version:
                steps += [*_compare(vip), *_admit(vip, *share), f"not {vip}"]
        steps.append((JUMP, "pass", "", 0))
    return (*resolved([*steps, "pass"]), *otherwise)


def _compare(vip: Address) -> list[Step]:
    """Continue if the packet is to the VIP."""
    at = ETHERNET_BYTES + (IPV4 if vip.version == 4 else IPV6).at("destination")
    steps: list[Step] = []
    for offset in range(0, len(vip.packed), WORD_BYTES):
        word = int.from_bytes(vip.packed[offset : offset + WORD_BYTES])
        steps += [(LOAD_WORD, "", "", at + offset), (EQUAL, "", f"not {vip}", word)]
    return steps


def _admit(vip: Address, new: float, others: float) -> list[Step]:
    """Drop the packet or go to ``pass``. A segment that begins a connection has SYN and no ACK."""
    transport: Step = (HEADER_LENGTH, "", "", ETHERNET_BYTES) if vip.version == 4 else (SET_INDEX, "", "", IPV6_BYTES)
    return [
        (LOAD_BYTE, "", "", ETHERNET_BYTES + PROTOCOL_AT[vip.version]), (EQUAL, "", f"{vip} other", TCP_PROTOCOL),
        transport, (LOAD_BYTE_BEHIND, "", "", ETHERNET_BYTES + TCP.at("flags")), (AND, "", "", SYN | ACK),
        (EQUAL, "", f"{vip} other", SYN),
        (LOAD_WORD, "", "", RANDOM), (AT_LEAST, f"{vip} drop", f"{vip} pass", _limit(new)),
        f"{vip} other",
        (LOAD_WORD, "", "", RANDOM), (AT_LEAST, f"{vip} drop", f"{vip} pass", _limit(others)),
        f"{vip} drop", (RETURN, "", "", 0),
        f"{vip} pass", (JUMP, "pass", "", 0),
    ]  # fmt: skip


def _limit(share: float) -> int:
    return min(round(share * 2**32), 2**32 - 1)
