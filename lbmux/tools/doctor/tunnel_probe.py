"""Probe a backend through its tunnel: send a packet to the VIP to one host, as the mux would, and read the answer.

The packet is a SYN or a datagram with the mux's address as its source, so the server answers the mux.  One probe
distinguishes a host that is down, an agent that is not running, a closed port, and a path MTU that is too small.

Answers are read from packet sockets, before this machine's firewall.  The firewall has not seen the probe and may drop
the answer as part of no connection.
"""

import contextlib
import errno
import select
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from lbmux.addresses import FAMILIES, Address
from lbmux.config.traffic_models import TunnelKind
from lbmux.errors import SetupError
from lbmux.frames.socket_filters import answers, attach
from lbmux.tools.doctor.probe_tunnels import Key, Tunnels
from lbmux.wire import icmp_types as icmp
from lbmux.wire.header_layouts import (
    ETHERNET_BYTES,
    ICMP_ERROR,
    IP,
    IP_BYTES,
    PORTS,
    PROTOCOL_AT,
    TCP,
    TCP_BYTES,
    UDP_BYTES,
)
from lbmux.wire.numbers import ETHERTYPES, RST, SYN
from lbmux.wire.packet import read_ip, version_of

FIRST_PORT, LAST_PORT = 61001, 65535
"""Source ports of probes.  Each probe has its own, which identifies its answer."""
WAIT_S, TRIES = 1.1, 3
"""Together longer than the 3 s that a router waits for a neighbour before it sends host unreachable."""
QUOTED_LEAST_BYTES, QUOTED_BYTES = 8, 64
"""Bytes of the transport header that every quote has, and bytes of a quoted packet that are compared.

Later bytes may be ICMP extensions (RFC 4884).
"""
PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
LEAST_BYTES = {"tcp": TCP_BYTES, "udp": UDP_BYTES}
"""The shortest segment or datagram that is parsed."""


@dataclass(frozen=True)
class Target:
    """One backend of a service, by the host that its packets are tunnelled to."""

    service: str
    backend: str
    host: Address
    vip: Address
    port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    kind: TunnelKind = "ipip"
    payload: bytes = b""
    """The payload of a datagram."""
    answers: bool = False
    """Whether a healthy server answers this datagram."""
    length_bytes: int = 0
    """The minimum length of the outer packet."""

    @property
    def key(self) -> Key:
        return self.service, self.backend

    @property
    def name(self) -> str:
        return f"{self.service}/{self.backend} at {self.host}"


@dataclass(frozen=True)
class Answer:
    """The answer to a probe, from ``sender``.  ``mtu`` is the path's, where known.

    ``kind``: open; closed (no server on the port); refused (no agent takes the tunnel); unreachable; too_big; silence.
    """

    kind: str
    sender: str = ""
    mtu: int = 0
    reason: str = ""


Targets = Mapping[int, Target]
"""Targets by the source port of their probe."""
Sent = Mapping[int, bytes]
"""Outer packets by the source port of their probe."""
ERRORS: dict[tuple[int, int, int], tuple[str, str]] = {
    (4, icmp.UNREACHABLE, icmp.NETWORK): ("unreachable", "network unreachable"),
    (4, icmp.UNREACHABLE, icmp.HOST): ("unreachable", "host unreachable"),
    (4, icmp.UNREACHABLE, icmp.PROTOCOL): ("refused", "protocol unreachable"),
    (4, icmp.UNREACHABLE, icmp.PORT): ("refused", "port unreachable"),
    (4, icmp.UNREACHABLE, icmp.NEEDS_FRAGMENTATION): ("too_big", "too big"),
    (4, icmp.UNREACHABLE, icmp.NETWORK_FORBIDDEN): ("unreachable", "forbidden"),
    (4, icmp.UNREACHABLE, icmp.HOST_FORBIDDEN): ("unreachable", "forbidden"),
    (4, icmp.UNREACHABLE, icmp.FORBIDDEN): ("unreachable", "forbidden"),
    (6, icmp.V6_UNREACHABLE, icmp.V6_NO_ROUTE): ("unreachable", "network unreachable"),
    (6, icmp.V6_UNREACHABLE, icmp.V6_FORBIDDEN): ("unreachable", "forbidden"),
    (6, icmp.V6_UNREACHABLE, icmp.V6_ADDRESS): ("unreachable", "host unreachable"),
    (6, icmp.V6_UNREACHABLE, icmp.V6_PORT): ("refused", "port unreachable"),
    (6, icmp.V6_TOO_BIG, 0): ("too_big", "too big"),
    (6, icmp.V6_PARAMETER_PROBLEM, icmp.V6_UNKNOWN_NEXT_HEADER): ("refused", "protocol unreachable"),
}
"""IP version, ICMP type and code (RFC 792, 1812 and 4443): kind and reason."""


class Wire:
    """The raw sockets, of the versions of IP and the protocols that the targets need."""

    def __init__(self, targets: Iterable[Target], stack: contextlib.ExitStack) -> None:
        versions = {address.version for target in targets for address in (target.host, target.vip)}

        def opened(version: int, protocol: int) -> socket.socket:
            return stack.enter_context(socket.socket(FAMILIES[version], socket.SOCK_RAW, protocol))

        self._out = {version: opened(version, socket.IPPROTO_RAW) for version in versions}
        self._link = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))  # 0: receive nothing
        self._in = [stack.enter_context(listening_socket(version)) for version in versions]

    def send(self, frame: bytes, interface: int, target: Target) -> None:
        """Send by the kernel's routes, or as a frame if there is no outer header or a local firewall blocks the packet.

        A frame without an outer header depends on its MAC address. The mux's own frames bypass the firewall.
        """
        if target.kind != "direct":
            try:
                self._out[target.host.version].sendto(frame[ETHERNET_BYTES:], (str(target.host), 0))
                return
            except PermissionError:
                if not interface:
                    raise
        self._link.sendto(frame, (socket.if_indextoname(interface), 0))

    def listen(self, targets: Targets, sent: Sent) -> Iterator[tuple[int, Answer]]:
        """Yield answers to the probes as they arrive, for WAIT_S."""
        until = time.monotonic() + WAIT_S
        while (left := until - time.monotonic()) > 0:
            for sock in select.select(self._in, [], [], left)[0]:
                answer = parse_answer(sock.recv(65535), targets, sent)
                if answer is not None:
                    yield answer


def listening_socket(version: int) -> socket.socket:
    """Return a packet socket on every link, with a filter for answers to probes."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETHERTYPES[version]))
    attach(sock, answers(version, FIRST_PORT, LAST_PORT))
    return sock


def parse_answer(packet: bytes, targets: Targets, sent: Sent) -> tuple[int, Answer] | None:
    """Return the probe's port and the answer that an IP packet carries; None if it answers no probe."""
    ip = read_ip(packet)
    if ip is None or ip.is_fragment:
        return None
    if ip.is_icmp:
        is_whole = len(ip.payload) >= ICMP_ERROR.size
        return parse_icmp_error(ip.source, ip.payload, targets, sent) if is_whole else None
    name = next((name for name, number in PROTOCOLS.items() if number == ip.protocol), "")
    is_whole = name != "" and len(ip.payload) >= LEAST_BYTES[name]
    return parse_server_answer(ip.source, name, ip.payload, targets) if is_whole else None


def probe(own: Mapping[int, Address], targets: Iterable[Target], tunnels: Tunnels) -> dict[Target, Answer]:
    """Send all probes and collect the answers.

    ``own``: this mux's addresses by IP version.  Raise SetupError without CAP_NET_RAW.
    """
    ports = {FIRST_PORT + at: target for at, target in enumerate(targets)}
    answers: dict[int, Answer] = {}
    sent: dict[int, bytes] = {}
    try:
        with contextlib.ExitStack() as stack:
            wire = Wire(ports.values(), stack)
            for _ in range(TRIES):
                waiting = {port: target for port, target in ports.items() if port not in answers}
                if not waiting:
                    break
                for port, target in waiting.items():
                    answers |= _send(wire, tunnels, sent, port, target, packet_of(own, tunnels, port, target))
                for port, answer in wire.listen(waiting, sent):
                    answers.setdefault(port, answer)
                    if answers.keys() >= waiting.keys():
                        break
            for port, target in ports.items():
                if target.protocol == "tcp" and answers.get(port, Answer("")).kind == "open":
                    _send(wire, tunnels, sent, port, target, packet_of(own, tunnels, port, target, RST))
    except PermissionError as error:
        raise SetupError("raw socket", "not permitted", "needs CAP_NET_RAW: run as root") from error
    return {target: answers.get(port, Answer("silence")) for port, target in ports.items()}


def _send(
    wire: Wire, tunnels: Tunnels, sent: dict[int, bytes], port: int, target: Target, packet: bytes
) -> dict[int, Answer]:
    """Send one probe.  Return the error as its answer if this machine's kernel refuses to send it."""
    wrapped = tunnels.wrap(packet, target.vip.version, port, target.key)
    if wrapped is None:
        return {port: Answer("unreachable", "this machine", reason="the host's MAC address is not known")}
    frame, interface = wrapped
    sent[port] = frame[ETHERNET_BYTES:]
    try:
        wire.send(frame, interface, target)
    except OSError as error:
        if error.errno == errno.EMSGSIZE:
            return {port: Answer("too_big", "this machine")}
        return {port: Answer("unreachable", "this machine", reason=error.strerror or str(error))}
    return {}


def packet_of(own: Mapping[int, Address], tunnels: Tunnels, port: int, target: Target, flags: int = SYN) -> bytes:
    """Return the inner packet to the VIP, padded to the target's length."""
    from scapy.layers.inet import IP, TCP, UDP
    from scapy.layers.inet6 import IPv6

    version, ends = target.vip.version, {"src": str(own[target.vip.version]), "dst": str(target.vip)}
    header: Any = IP(**ends, flags="DF") if version == 4 else IPv6(**ends)
    if target.protocol == "udp":
        packet = header / UDP(sport=port, dport=target.port) / target.payload
    else:
        # The RST carries the sequence number that the server expects, or the server would ignore it.
        packet = header / TCP(sport=port, dport=target.port, seq=1 if flags == RST else 0, flags=flags)
    missing = target.length_bytes - tunnels.overhead_bytes(target.key) - len(packet)
    return bytes(packet / bytes(missing) if missing > 0 and flags == SYN else packet)


def parse_server_answer(sender: Address, protocol: str, segment: bytes, targets: Targets) -> tuple[int, Answer] | None:
    """Return the answer that a segment or datagram carries; None if it answers no probe."""
    ports = PORTS.unpack(segment)
    target = targets.get(ports.destination_port)
    if target is None or (sender, ports.source_port, protocol) != (target.vip, target.port, target.protocol):
        return None
    is_closed = protocol == "tcp" and TCP.unpack(segment).flags & RST
    return ports.destination_port, Answer("closed" if is_closed else "open", str(target.vip))


def parse_icmp_error(sender: Address, message: bytes, targets: Targets, sent: Sent) -> tuple[int, Answer] | None:
    """Parse an ICMP error about a probe.

    Routers may quote only 8 bytes of the outer packet, which can match another probe to the same host.
    """
    error = ICMP_ERROR.unpack(message)
    known, quoted = ERRORS.get((sender.version, error.type, error.code)), message[ICMP_ERROR.size :]
    length = IP_BYTES[sender.version]
    if known is None or len(quoted) < length + QUOTED_LEAST_BYTES:
        return None
    answer = Answer(known[0], str(sender), error.value & 0xFFFF if known[0] == "too_big" else 0, known[1])
    port = next((port for port in targets if port in sent and _quotes(quoted, sent[port], sender.version)), None)
    if port is not None and targets[port].kind != "direct":
        return port, answer
    if port is None and answer.kind == "too_big":
        return None  # the mux's own error, sent to the probe as to a client after the router's error about the tunnel
    # The host's own error about what the agent delivered: the packet to the VIP, or the translated one to the DIP.
    port = port or PORTS.unpack(quoted, length).source_port
    if port not in targets or quoted[PROTOCOL_AT[sender.version]] != PROTOCOLS[targets[port].protocol]:
        return None
    return port, replace(answer, kind="closed") if answer.kind == "refused" else answer


def _quotes(quoted: bytes, sent: bytes, version: int) -> bool:
    """Return whether a quote is the beginning of this packet.  Fields that routers change are not compared."""
    header, behind = IP[version], slice(IP_BYTES[version], min(len(quoted), len(sent), QUOTED_BYTES))
    is_same_host = version_of(sent) == version and header.unpack(quoted).destination == header.unpack(sent).destination
    return is_same_host and quoted[behind] == sent[behind]
