"""Options of packet and raw sockets: classic BPF filters (socket(7), SO_ATTACH_FILTER), and path MTUs ignored."""

import socket
import struct
from collections.abc import Sequence

import numpy as np

from lbmux.wire.header_layouts import ETHERNET, ETHERNET_BYTES, IPV4, IPV6_BYTES, PORTS, PROTOCOL_AT
from lbmux.wire.numbers import (
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    FRAGMENT_HEADER,
    GRE_PROTOCOL,
    ICMP_BY_VERSION,
    IPIP_PROTOCOL,
    IPV6_PROTOCOL,
    MF,
    OFFSET_MASK,
    TCP_PROTOCOL,
    UDP_PROTOCOL,
)

SO_ATTACH_FILTER = 26
IP_MTU_DISCOVER, IP_PMTUDISC_OMIT = 10, 5
"""linux/in.h."""
WHOLE = 0x40000
LOAD_BYTE, LOAD_HALF, LOAD_HALF_BEHIND, HEADER_LENGTH, EQUAL, ANY_BIT, RETURN = 0x30, 0x28, 0x48, 0xB1, 0x15, 0x45, 0x06
ABOVE, AT_LEAST, LOAD_WORD = 0x25, 0x35, 0x20
LOAD_BYTE_BEHIND, LOAD_LENGTH, SET_INDEX, SUBTRACT, AND, SHIFT = 0x50, 0x80, 0x01, 0x14, 0x54, 0x74
AT_LEAST_INDEX, JUMP = 0x3D, 0x05
TUNNEL_PROTOCOLS = (IPIP_PROTOCOL, IPV6_PROTOCOL, GRE_PROTOCOL, FRAGMENT_HEADER)  # the last in IPv6 only
FRAGMENT_AT, PORT_AT = ETHERNET_BYTES + IPV4.at("fragment"), PORTS.at("destination_port")

Line = tuple[int, int, int, int]
"""(code, instructions to skip if true, if false, number)"""
Step = str | tuple[int, str, str, int]
"""A label, or (code, label to go to if true, if false, number); an empty label is the next instruction. A conditional
jump skips at most 255 instructions, JUMP any number."""

NOTHING: tuple[Line, ...] = ((RETURN, 0, 0, 0),)


WITH_SOURCE: tuple[Line, ...] = (
    (LOAD_WORD, 0, 0, ETHERNET.at("source")),
    (EQUAL, 0, 2, 0),
    (LOAD_HALF, 0, 0, ETHERNET.at("source") + 4),
    (EQUAL, 1, 0, 0),
    (RETURN, 0, 0, WHOLE),
    *NOTHING,
)
"""Accept frames with an Ethernet source other than zero: not those that an edge's agent has delivered."""


def tunnels(*udp_ports: int) -> tuple[Line, ...]:
    """Accept frames that may be tunnelled to a host: IP in IP, GRE, and UDP to these ports, over IPv4 and IPv6.

    Only the first fragment has the port, so all UDP fragments are accepted.
    """
    port = (HEADER_LENGTH, ETHERNET_BYTES), (LOAD_HALF_BEHIND, ETHERNET_BYTES + PORT_AT)
    port6 = ((LOAD_HALF, ETHERNET_BYTES + IPV6_BYTES + PORT_AT),)
    over_ipv4 = _of_protocol((LOAD_BYTE, ETHERNET_BYTES + PROTOCOL_AT[4]), port, udp_ports, FRAGMENT_AT)
    over_ipv6 = _of_protocol((LOAD_BYTE, ETHERNET_BYTES + PROTOCOL_AT[6]), port6, udp_ports)
    return (
        (LOAD_HALF, 0, 0, ETHERNET.at("type")),
        (EQUAL, 0, len(over_ipv4), ETHERTYPE_IPV4), *over_ipv4,
        (EQUAL, 0, len(over_ipv6), ETHERTYPE_IPV6), *over_ipv6,
        *NOTHING,
    )  # fmt: skip


def answers(version: int, first_port: int, last_port: int) -> tuple[Line, ...]:
    """Accept ICMP, and TCP and UDP to one of these ports. The socket must deliver no link header."""
    port: tuple[Line, ...] = ((LOAD_HALF, 0, 0, IPV6_BYTES + PORT_AT),)
    first_fragment: tuple[Line, ...] = ()
    if version == 4:
        port = ((HEADER_LENGTH, 0, 0, 0), (LOAD_HALF_BEHIND, 0, 0, PORT_AT))
        first_fragment = ((LOAD_HALF, 0, 0, IPV4.at("fragment")), (ANY_BIT, len(port) + 2, 0, OFFSET_MASK))
    to_end = len(first_fragment) + len(port) + 2
    return (
        (LOAD_BYTE, 0, 0, PROTOCOL_AT[version]),
        (EQUAL, to_end + 3, 0, ICMP_BY_VERSION[version]),
        (EQUAL, 1, 0, TCP_PROTOCOL),
        (EQUAL, 0, to_end, UDP_PROTOCOL),
        *first_fragment,
        *port,
        (AT_LEAST, 0, 1, first_port),
        (ABOVE, 0, 1, last_port),
        *NOTHING,
        (RETURN, 0, 0, WHOLE),
    )


def tcp_to(port: int, version: int) -> tuple[Line, ...]:
    """Accept TCP segments to a port, for a raw socket. It delivers the IPv4 header, but not the IPv6 header."""
    load = (
        ((HEADER_LENGTH, 0, 0, 0), (LOAD_HALF_BEHIND, 0, 0, PORT_AT)) if version == 4 else ((LOAD_HALF, 0, 0, PORT_AT),)
    )
    return (*load, (EQUAL, 0, 1, port), (RETURN, 0, 0, WHOLE), *NOTHING)


def _of_protocol(
    protocol: tuple[int, int], port: tuple[tuple[int, int], ...], udp_ports: tuple[int, ...], fragment_at: int = 0
) -> tuple[Line, ...]:
    """Accept a tunnel's protocol, or UDP to one of the ports. ``protocol`` and ``port`` load those fields."""
    lines = len(TUNNEL_PROTOCOLS) + 1 + (2 if fragment_at else 0) + len(port) + len(udp_ports) + 2
    program: list[Line] = [(protocol[0], 0, 0, protocol[1])]
    for number in TUNNEL_PROTOCOLS:
        program.append((EQUAL, lines - len(program) - 1, 0, number))
    program.append((EQUAL, 0, lines - len(program) - 2, UDP_PROTOCOL))
    if fragment_at:
        program.append((LOAD_HALF, 0, 0, fragment_at))
        program.append((ANY_BIT, lines - len(program) - 1, 0, MF | OFFSET_MASK))
    program += [(code, 0, 0, offset) for code, offset in port]
    for number in udp_ports:
        program.append((EQUAL, lines - len(program) - 1, 0, number))
    return (*program, *NOTHING, (RETURN, 0, 0, WHOLE))


def resolved(steps: Sequence[Step]) -> list[Line]:
    """Return the instructions, with labels resolved to distances."""
    labels, lines = dict[str, int](), list[tuple[int, str, str, int]]()
    for step in steps:
        if isinstance(step, str):
            labels[step] = len(lines)
        else:
            lines.append(step)

    def distance(label: str, at: int) -> int:
        return labels[label] - at - 1 if label else 0

    return [
        (JUMP, 0, 0, distance(yes, at)) if code == JUMP else (code, distance(yes, at), distance(no, at), number)
        for at, (code, yes, no, number) in enumerate(lines)
    ]


def attach(sock: socket.socket, program: tuple[Line, ...]) -> None:
    """Attach the program to a socket, which then receives only the frames that the program accepts."""
    code = np.frombuffer(b"".join(struct.pack("HBBI", *line) for line in program), np.uint8)
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HxxxxxxQ", len(program), code.ctypes.data))


def ignore_path_mtus(sock: socket.socket) -> None:
    """Keep the kernel from setting route MTUs by ICMP errors that quote a packet of this raw socket's protocol.

    The kernel compares nothing else, so anyone could lower the path MTU to any address, down to 552 bytes. IPv6 has no
    such option for raw sockets, and its path MTU is never below 1280 bytes.
    """
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_OMIT)
