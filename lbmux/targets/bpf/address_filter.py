"""A program that drops packets to any address of a set, written as BPF instructions.

It runs at tcx ingress: after XDP and packet sockets, before the kernel's own receive path. It needs no compiler, so a
mux in user space does not wait for one.
"""

import socket
import struct

from lbmux.targets.bpf.syscall import Attach, Loaded, load_program
from lbmux.wire.header_layouts import ETHERNET, IPV4, IPV6, IPV6_BYTES, TAG, TAG_BYTES
from lbmux.wire.icmp_types import V6_ADVERTISEMENT, V6_SOLICITATION
from lbmux.wire.numbers import ETHERTYPE_IPV4, ETHERTYPE_IPV6, ICMPV6_PROTOCOL, TAG_ETHERTYPES

NEXT, DROP = -1, 2
"""TCX_NEXT and TCX_DROP."""
LOAD_BYTES, LOOKUP, FROM_MAC_HEADER, FROM_NETWORK_HEADER = 68, 1, 0, 1
"""Helpers bpf_skb_load_bytes_relative and bpf_map_lookup_elem, and where offsets count from.

Offsets from the start of the frame are wrong after a generic XDP program that accepts multi-buffer frames: the kernel
gives it a copy whose mac_len is 0.
"""
PROTOCOL_AT = 16  # struct __sk_buff
TYPE_IPV4, TYPE_IPV6, TYPE_VLAN, TYPE_QINQ = map(socket.htons, (ETHERTYPE_IPV4, ETHERTYPE_IPV6, *TAG_ETHERTYPES))
"""Ethernet types as loaded."""
KEY, SCRATCH = -16, -24
"""Offsets on the stack, relative to its end in r10."""

MOV, MOV_NUMBER, ADD_NUMBER, LOAD_WORD, LOAD_HALF, LOAD_BYTE = 0xBF, 0xB7, 0x07, 0x61, 0x69, 0x71
LOAD_DOUBLE, MAC_BYTES = 0x79, 6
STORE_WORD, STORE_DOUBLE, ATOMIC_ADD, LOAD_64 = 0x62, 0x7A, 0xDB, 0x18
MAP, MAP_VALUE = 1, 2
"""Source registers of LOAD_64: BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE."""
JUMP, EQUAL, NOT_EQUAL, CALL, EXIT = 0x05, 0x15, 0x55, 0x85, 0x95

Line = str | tuple[int, int, int, int | str, int]
"""A label, or (operation, destination register, source register, offset or jump label, number)."""


def load(addresses: int, counter: int, *, passes_delivered: bool = False) -> Loaded:
    """Load the program. Raise BpfError if the kernel refuses it.

    ``addresses`` is the descriptor of an AddressSet, ``counter`` that of an array with one 8-byte count of drops.
    ``passes_delivered``: let frames pass that an edge's agent has marked, by an Ethernet source of zero.
    """
    program = _program(addresses, counter, DELIVERED_PASS if passes_delivered else [])
    return load_program(Attach.TCX_INGRESS, assembled(program), "lbmux_vips")


def assembled(lines: list[Line]) -> bytes:
    """Encode the instructions, with labels resolved to distances."""
    labels, code = dict[str, int](), list[tuple[int, int, int, int | str, int]]()
    for line in lines:
        if isinstance(line, str):
            labels[line] = len(code)
        else:
            code.append(line)
    return b"".join(
        struct.pack("<BBhi", operation, source << 4 | destination, _distance(labels, offset, at), number)
        for at, (operation, destination, source, offset, number) in enumerate(code)
    )


def _distance(labels: dict[str, int], offset: int | str, at: int) -> int:
    return labels[offset] - at - 1 if isinstance(offset, str) else offset


def _bytes(offset: int, to: int, length: int) -> list[Line]:
    """Load bytes at r8 + ``offset`` of the network header to the stack. A packet that is too short passes."""
    return [
        (MOV, 1, 6, 0, 0), (MOV, 2, 8, 0, 0), (ADD_NUMBER, 2, 0, 0, offset), (MOV, 3, 10, 0, 0),
        (ADD_NUMBER, 3, 0, 0, to), (MOV_NUMBER, 4, 0, 0, length),
        (MOV_NUMBER, 5, 0, 0, FROM_NETWORK_HEADER), (CALL, 0, 0, 0, LOAD_BYTES),
        (NOT_EQUAL, 0, 0, "pass", 0),
    ]  # fmt: skip


DELIVERED_PASS: list[Line] = [
    (STORE_DOUBLE, 10, 0, KEY, 0), (MOV, 1, 6, 0, 0), (MOV_NUMBER, 2, 0, 0, ETHERNET.at("source")), (MOV, 3, 10, 0, 0),
    (ADD_NUMBER, 3, 0, 0, KEY), (MOV_NUMBER, 4, 0, 0, MAC_BYTES), (MOV_NUMBER, 5, 0, 0, FROM_MAC_HEADER),
    (CALL, 0, 0, 0, LOAD_BYTES), (NOT_EQUAL, 0, 0, "unmarked", 0),
    (LOAD_DOUBLE, 7, 10, KEY, 0), (EQUAL, 7, 0, "pass", 0), "unmarked",
]  # fmt: skip


def _program(addresses: int, counter: int, first: list[Line]) -> list[Line]:
    """Return the program. r6 is the context, r7 the Ethernet type, r8 the IP header's offset."""
    return [
        (MOV, 6, 1, 0, 0), *first, (LOAD_WORD, 7, 6, PROTOCOL_AT, 0), (MOV_NUMBER, 8, 0, 0, 0),
        (EQUAL, 7, 0, "ipv4", TYPE_IPV4), (EQUAL, 7, 0, "ipv6", TYPE_IPV6),
        (EQUAL, 7, 0, "tagged", TYPE_VLAN), (NOT_EQUAL, 7, 0, "pass", TYPE_QINQ),
        "tagged",  # the inner of two tags: the kernel has removed the outer one
        *_bytes(TAG.at("type"), SCRATCH, 2), (LOAD_HALF, 7, 10, SCRATCH, 0), (ADD_NUMBER, 8, 0, 0, TAG_BYTES),
        (EQUAL, 7, 0, "ipv4", TYPE_IPV4), (EQUAL, 7, 0, "ipv6", TYPE_IPV6), (JUMP, 0, 0, "pass", 0),
        "ipv4",
        (STORE_DOUBLE, 10, 0, KEY, 0), (STORE_WORD, 10, 0, KEY + 8, -0x10000),
        *_bytes(IPV4.at("destination"), KEY + 12, 4), (JUMP, 0, 0, "look_up", 0),
        "ipv6",  # neighbour discovery stays on the link and is never forwarded
        *_bytes(IPV6.at("next"), SCRATCH, 1), (LOAD_BYTE, 7, 10, SCRATCH, 0),
        (NOT_EQUAL, 7, 0, "address", ICMPV6_PROTOCOL),
        *_bytes(IPV6_BYTES, SCRATCH, 1), (LOAD_BYTE, 7, 10, SCRATCH, 0),
        (EQUAL, 7, 0, "pass", V6_SOLICITATION), (EQUAL, 7, 0, "pass", V6_ADVERTISEMENT),
        "address",
        *_bytes(IPV6.at("destination"), KEY, 16),
        "look_up",
        (LOAD_64, 1, MAP, 0, addresses), (0, 0, 0, 0, 0), (MOV, 2, 10, 0, 0), (ADD_NUMBER, 2, 0, 0, KEY),
        (CALL, 0, 0, 0, LOOKUP), (EQUAL, 0, 0, "pass", 0),
        (LOAD_64, 2, MAP_VALUE, 0, counter), (0, 0, 0, 0, 0), (MOV_NUMBER, 1, 0, 0, 1), (ATOMIC_ADD, 2, 1, 0, 0),
        (MOV_NUMBER, 0, 0, 0, DROP), (EXIT, 0, 0, 0, 0),
        "pass",
        (MOV_NUMBER, 0, 0, 0, NEXT), (EXIT, 0, 0, 0, 0),
    ]  # fmt: skip
