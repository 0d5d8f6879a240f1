"""A probe through the tunnel: a SYN to a VIP, sent to one host as a mux would, and whatever comes back.

The agent and the server treat it as a client's, and answer the mux itself: so one question tells apart a host that is
down, an agent that is not running, a port that is closed, and a path that is too narrow.  Of TCP by IP in IP, where
each IP is of either version.
"""

import contextlib
import errno
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from lbmux.addresses import FAMILIES, Address
from lbmux.errors import SetupError

FIRST_PORT = 61001
"""Of the probes' own; each has another, by which its answer is known."""
SMALL_BYTES = 60
WAIT_S, TRIES = 1.1, 3
"""In all longer than the 3 s that a router asks for a neighbour before it says that the host is unreachable."""
SYN, RST = 0x02, 0x04
IP_IN_IP = {4: socket.IPPROTO_IPIP, 6: socket.IPPROTO_IPV6}
"""The outer header's protocol, by the inner version."""
HEADER_BYTES = {4: 20, 6: 40}
ICMP = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}


@dataclass(frozen=True)
class Target:
    """One backend of a service, by the host that its packets are tunnelled to."""

    name: str
    host: Address
    vip: Address
    port: int
    length_bytes: int = SMALL_BYTES
    """Of the outer packet."""


@dataclass(frozen=True)
class Answer:
    """``kind``: open, closed, too_big, protocol, unreachable, silence; ``who`` said so; ``mtu``: the path's."""

    kind: str
    who: str = ""
    mtu: int = 0
    reason: str = ""


Targets = Mapping[int, Target]
"""By the port that their probe comes from."""
ERRORS: dict[tuple[int, int, int], tuple[str, str]] = {
    (4, 3, 0): ("unreachable", "network unreachable"),
    (4, 3, 1): ("unreachable", "host unreachable"),
    (4, 3, 2): ("protocol", "protocol unreachable"),
    (4, 3, 3): ("unreachable", "port unreachable"),
    (4, 3, 4): ("too_big", "too big"),
    (4, 3, 9): ("unreachable", "forbidden"),
    (4, 3, 10): ("unreachable", "forbidden"),
    (4, 3, 13): ("unreachable", "forbidden"),
    (6, 1, 0): ("unreachable", "network unreachable"),
    (6, 1, 1): ("unreachable", "forbidden"),
    (6, 1, 3): ("unreachable", "host unreachable"),
    (6, 2, 0): ("too_big", "too big"),
    (6, 4, 1): ("protocol", "protocol unreachable"),
}
"""IP version, ICMP type and code (RFC 792, 1812 and 4443): kind and reason."""


class Wire:
    """The raw sockets, of the families that the targets need."""

    def __init__(self, targets: Iterable[Target], stack: contextlib.ExitStack) -> None:
        versions = {address.version for target in targets for address in (target.host, target.vip)}

        def opened(version: int, protocol: int) -> socket.socket:
            return stack.enter_context(socket.socket(FAMILIES[version], socket.SOCK_RAW, protocol))

        self._out = {version: opened(version, socket.IPPROTO_RAW) for version in versions}
        self._tcp = {opened(version, socket.IPPROTO_TCP): version for version in versions}
        self._icmp = {opened(version, ICMP[version]): version for version in versions}

    def send(self, packet: bytes, host: Address) -> None:
        self._out[host.version].sendto(packet, (str(host), 0))

    def listen(self, targets: Targets) -> Iterator[tuple[int, Answer]]:
        """Answers to these, as they come, until nothing more is to be waited for."""
        until = time.monotonic() + WAIT_S
        while (left := until - time.monotonic()) > 0:
            for sock in select.select([*self._tcp, *self._icmp], [], [], left)[0]:
                message, sender = sock.recvfrom(65535)
                who = ip_address(sender[0])
                if who.version == 4:  # IPv6 hands up no header
                    message = message[(message[0] & 15) * 4 :]
                found = of_tcp(who, message, targets) if sock in self._tcp else of_icmp(who, message, targets)
                if found is not None:
                    yield found


def probe(sources: Mapping[int, Address], targets: Iterable[Target]) -> dict[Target, Answer]:
    """What came back for each.  ``sources``: own addresses by version.  SetupError without the right to raw sockets."""
    ports = {FIRST_PORT + at: target for at, target in enumerate(targets)}
    answers: dict[int, Answer] = {}
    try:
        with contextlib.ExitStack() as stack:
            wire = Wire(ports.values(), stack)
            for _ in range(TRIES):
                waiting = {port: target for port, target in ports.items() if port not in answers}
                if not waiting:
                    break
                for port, target in waiting.items():
                    answers |= _send(wire, sources, port, target)
                for port, answer in wire.listen(waiting):
                    answers.setdefault(port, answer)
                    if answers.keys() >= waiting.keys():
                        break
            for port, target in ports.items():
                if answers.get(port, Answer("")).kind == "open":
                    _send(wire, sources, port, target, RST)
    except PermissionError as error:
        raise SetupError("raw socket", "not permitted", "needs CAP_NET_RAW: run as root") from error
    return {target: answers.get(port, Answer("silence")) for port, target in ports.items()}


def _send(wire: Wire, sources: Mapping[int, Address], port: int, target: Target, flags: int = SYN) -> dict[int, Answer]:
    """Send one; what the kernel says at once, of this machine's own routes."""
    from scapy.layers.inet import TCP

    # The RST's sequence number is the one that the server expects: else it would not count.
    segment = TCP(sport=port, dport=target.port, seq=1 if flags == RST else 0, flags=flags)
    inner = _header(sources, target.vip, socket.IPPROTO_TCP) / segment
    padding = target.length_bytes - HEADER_BYTES[target.host.version] - len(inner)
    if flags == SYN and padding > 0:
        inner = inner / bytes(padding)
    try:
        wire.send(bytes(_header(sources, target.host, IP_IN_IP[target.vip.version]) / inner), target.host)
    except OSError as error:
        if error.errno == errno.EMSGSIZE:
            return {port: Answer("too_big", "this machine")}
        return {port: Answer("unreachable", "this machine", reason=error.strerror or str(error))}
    return {}


def _header(sources: Mapping[int, Address], destination: Address, protocol: int) -> Any:
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6

    ends = {"src": str(sources[destination.version]), "dst": str(destination)}
    return IP(**ends, proto=protocol, flags="DF") if destination.version == 4 else IPv6(**ends, nh=protocol)


def of_tcp(who: Address, segment: bytes, targets: Targets) -> tuple[int, Answer] | None:
    """What a segment answers; None where it is somebody else's."""
    source_port, port = struct.unpack_from("!HH", segment)
    target = targets.get(port)
    if target is None or (who, source_port) != (target.vip, target.port):
        return None
    return port, Answer("closed" if segment[13] & RST else "open", str(target.vip))


def of_icmp(who: Address, message: bytes, targets: Targets) -> tuple[int, Answer] | None:
    """An error about a probe.  Routers may quote 8 bytes of it: then the host tells which it was, and not the port."""
    kind, code, _, mtu = struct.unpack_from("!BBHI", message)
    known, quoted = ERRORS.get((who.version, kind, code)), message[8:]
    length = HEADER_BYTES[who.version]
    if known is None or len(quoted) < length:
        return None
    protocol, host = (quoted[9], quoted[16:20]) if who.version == 4 else (quoted[6], quoted[24:40])
    if protocol not in IP_IN_IP.values():
        return None
    start = length + (HEADER_BYTES[4] if protocol == IP_IN_IP[4] else HEADER_BYTES[6])
    port = struct.unpack_from("!H", quoted, start)[0] if len(quoted) >= start + 2 else None
    if port not in targets:
        port = next((port for port, target in targets.items() if target.host.packed == host), None)
    if port is None:
        return None
    return port, Answer(known[0], str(who), mtu & 0xFFFF if known[0] == "too_big" else 0, known[1])
