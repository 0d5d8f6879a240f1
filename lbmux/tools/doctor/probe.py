"""A probe through the tunnel: a SYN to a VIP, sent to one host as a mux would, and whatever comes back.

The agent and the server treat it as a client's, and answer the mux itself: so one question tells apart a host that is
down, an agent that is not running, a port that is closed, and a path that is too narrow.  Only IP in IP, IPv4 and TCP.
"""

import contextlib
import errno
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from lbmux.errors import SetupError

FIRST_PORT = 61001
"""Of the probes' own; each has another, by which its answer is known."""
SMALL_BYTES = 60
WAIT_S, TRIES = 1.1, 3
"""In all longer than the 3 s that a router asks for a neighbour before it says that the host is unreachable."""
SYN, RST = 0x02, 0x04
UNREACHABLE, PROTOCOL_UNREACHABLE, TOO_BIG = 3, 2, 4
REASONS = {0: "network unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable",
           9: "forbidden", 10: "forbidden", 13: "forbidden"}  # fmt: skip
"""RFC 792 and 1812, by code of ICMP type 3."""


@dataclass(frozen=True)
class Target:
    """One backend of a service, by the host that its packets are tunnelled to."""

    name: str
    host: IPv4Address
    vip: IPv4Address
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


def probe(source: IPv4Address, targets: Iterable[Target]) -> dict[Target, Answer]:
    """What came back for each.  SetupError without the right to raw sockets."""
    ports = {FIRST_PORT + at: target for at, target in enumerate(targets)}
    answers: dict[int, Answer] = {}
    try:
        with contextlib.ExitStack() as stack:
            tcp, icmp, out = (
                stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol))
                for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_ICMP, socket.IPPROTO_RAW)
            )
            for _ in range(TRIES):
                waiting = {port: target for port, target in ports.items() if port not in answers}
                if not waiting:
                    break
                for port, target in waiting.items():
                    answers |= _send(out, source, port, target)
                for port, answer in _listen(tcp, icmp, waiting):
                    answers.setdefault(port, answer)
                    if answers.keys() >= waiting.keys():
                        break
            for port, target in ports.items():
                if answers.get(port, Answer("")).kind == "open":
                    _send(out, source, port, target, RST)
    except PermissionError as error:
        raise SetupError("raw socket", "not permitted", "needs CAP_NET_RAW: run as root") from error
    return {target: answers.get(port, Answer("silence")) for port, target in ports.items()}


def _send(out: socket.socket, source: IPv4Address, port: int, target: Target, flags: int = SYN) -> dict[int, Answer]:
    """Send one; what the kernel says at once, of this machine's own routes."""
    from scapy.layers.inet import IP, TCP

    inner = IP(src=str(source), dst=str(target.vip), flags="DF", ttl=64)
    # A sequence number of its own for the RST, which else would not count.
    inner /= TCP(sport=port, dport=target.port, seq=1 if flags == RST else 0, flags=flags)
    packet = bytes(IP(src=str(source), dst=str(target.host), flags="DF", ttl=64, proto=socket.IPPROTO_IPIP) / inner)
    if flags != RST and len(packet) < target.length_bytes:
        inner = inner / bytes(target.length_bytes - len(packet))
        packet = bytes(IP(src=str(source), dst=str(target.host), flags="DF", ttl=64, proto=4) / inner)
    try:
        out.sendto(packet, (str(target.host), 0))
    except OSError as error:
        if error.errno == errno.EMSGSIZE:
            return {port: Answer("too_big", "this machine")}
        return {port: Answer("unreachable", "this machine", reason=error.strerror or str(error))}
    return {}


def _listen(tcp: socket.socket, icmp: socket.socket, targets: dict[int, Target]) -> Iterator[tuple[int, Answer]]:
    until = time.monotonic() + WAIT_S
    while (left := until - time.monotonic()) > 0:
        for sock in select.select([tcp, icmp], [], [], left)[0]:
            packet = sock.recv(65535)
            found = _of_tcp(packet, targets) if sock is tcp else _of_icmp(packet, targets)
            if found is not None:
                yield found


def _of_tcp(packet: bytes, targets: dict[int, Target]) -> tuple[int, Answer] | None:
    start = (packet[0] & 15) * 4
    source_port, port = struct.unpack_from("!HH", packet, start)
    target = targets.get(port)
    if target is None or (packet[12:16], source_port) != (target.vip.packed, target.port):
        return None
    return port, Answer("closed" if packet[start + 13] & RST else "open", str(target.vip))


def _of_icmp(packet: bytes, targets: dict[int, Target]) -> tuple[int, Answer] | None:
    """An error about a probe: routers quote 8 bytes of it at least, so the host tells which, and often no port."""
    start = (packet[0] & 15) * 4
    kind, code, _, _, mtu = struct.unpack_from("!BBHHH", packet, start)
    quoted = packet[start + 8 :]
    if kind != UNREACHABLE or len(quoted) < 20 or quoted[9] != socket.IPPROTO_IPIP:
        return None
    inner = quoted[20:]
    port = struct.unpack_from("!H", inner, 20)[0] if len(inner) >= 22 else None
    found = port if port in targets else next((p for p, t in targets.items() if t.host.packed == quoted[16:20]), None)
    if found is None:
        return None
    who = str(IPv4Address(packet[12:16]))
    if code == TOO_BIG:
        return found, Answer("too_big", who, mtu)
    name = "protocol" if code == PROTOCOL_UNREACHABLE else "unreachable"
    return found, Answer(name, who, reason=REASONS.get(code, f"unreachable, code {code}"))
