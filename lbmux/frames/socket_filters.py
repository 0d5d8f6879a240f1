"""Classic BPF programs that select the frames that a socket receives (socket(7), SO_ATTACH_FILTER)."""

import socket
import struct

import numpy as np

SO_ATTACH_FILTER = 26
WHOLE = 0x40000
LOAD_BYTE, LOAD_HALF, LOAD_HALF_BEHIND, HEADER_LENGTH, EQUAL, ANY_BIT, RETURN = 0x30, 0x28, 0x48, 0xB1, 0x15, 0x45, 0x06
ABOVE, AT_LEAST = 0x25, 0x35
TCP, ICMP = 6, {4: 1, 6: 58}
TUNNEL_PROTOCOLS, UDP = (4, 41, 47, 44), 17  # IP in IP, IPv6 in IP, GRE, and a fragment in IPv6
FRAGMENT_AT, MORE_OR_OFFSET, OFFSET = 20, 0x3FFF, 0x1FFF

Line = tuple[int, int, int, int]
"""(code, instructions to skip if true, if false, number)"""

NOTHING: tuple[Line, ...] = ((RETURN, 0, 0, 0),)


def tunnels(*udp_ports: int) -> tuple[Line, ...]:
    """Accept frames that may be tunnelled to a host: IP in IP, GRE, and UDP to these ports, over IPv4 and IPv6.

    Only the first fragment has the port, so all UDP fragments are accepted.
    """
    over_ipv4 = _of_protocol((LOAD_BYTE, 23), ((HEADER_LENGTH, 14), (LOAD_HALF_BEHIND, 16)), udp_ports, FRAGMENT_AT)
    over_ipv6 = _of_protocol((LOAD_BYTE, 20), ((LOAD_HALF, 56),), udp_ports)
    return (
        (LOAD_HALF, 0, 0, 12),
        (EQUAL, 0, len(over_ipv4), 0x0800), *over_ipv4,
        (EQUAL, 0, len(over_ipv6), 0x86DD), *over_ipv6,
        *NOTHING,
    )  # fmt: skip


def answers(version: int, first_port: int, last_port: int) -> tuple[Line, ...]:
    """Accept ICMP, and TCP and UDP to one of these ports. The socket must deliver no link header."""
    port: tuple[Line, ...] = ((LOAD_HALF, 0, 0, 42),)
    whole: tuple[Line, ...] = ()
    if version == 4:
        port = ((HEADER_LENGTH, 0, 0, 0), (LOAD_HALF_BEHIND, 0, 0, 2))
        whole = ((LOAD_HALF, 0, 0, 6), (ANY_BIT, len(port) + 2, 0, OFFSET))
    judged = len(whole) + len(port) + 2
    return (
        (LOAD_BYTE, 0, 0, 9 if version == 4 else 6),
        (EQUAL, judged + 3, 0, ICMP[version]),
        (EQUAL, 1, 0, TCP),
        (EQUAL, 0, judged, UDP),
        *whole,
        *port,
        (AT_LEAST, 0, 1, first_port),
        (ABOVE, 0, 1, last_port),
        *NOTHING,
        (RETURN, 0, 0, WHOLE),
    )


def tcp_to(port: int, version: int) -> tuple[Line, ...]:
    """Accept TCP segments to a port, for a raw socket. It delivers the IPv4 header, but not the IPv6 header."""
    load = ((HEADER_LENGTH, 0, 0, 0), (LOAD_HALF_BEHIND, 0, 0, 2)) if version == 4 else ((LOAD_HALF, 0, 0, 2),)
    return (*load, (EQUAL, 0, 1, port), (RETURN, 0, 0, WHOLE), *NOTHING)


def _of_protocol(
    protocol: tuple[int, int], port: tuple[tuple[int, int], ...], udp_ports: tuple[int, ...], fragment_at: int = 0
) -> tuple[Line, ...]:
    """Accept a tunnel's protocol, or UDP to one of the ports. ``protocol`` and ``port`` load those fields."""
    lines = len(TUNNEL_PROTOCOLS) + 1 + (2 if fragment_at else 0) + len(port) + len(udp_ports) + 2
    program: list[Line] = [(protocol[0], 0, 0, protocol[1])]
    for number in TUNNEL_PROTOCOLS:
        program.append((EQUAL, lines - len(program) - 1, 0, number))
    program.append((EQUAL, 0, lines - len(program) - 2, UDP))
    if fragment_at:
        program.append((LOAD_HALF, 0, 0, fragment_at))
        program.append((ANY_BIT, lines - len(program) - 1, 0, MORE_OR_OFFSET))
    program += [(code, 0, 0, offset) for code, offset in port]
    for number in udp_ports:
        program.append((EQUAL, lines - len(program) - 1, 0, number))
    return (*program, *NOTHING, (RETURN, 0, 0, WHOLE))


def attach(sock: socket.socket, program: tuple[Line, ...]) -> None:
    """Attach the program to a socket, which then receives only the frames that the program accepts."""
    code = np.frombuffer(b"".join(struct.pack("HBBI", *line) for line in program), np.uint8)
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HxxxxxxQ", len(program), code.ctypes.data))
