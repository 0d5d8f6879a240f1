"""Probes with one datagram each way: udp, dns (RFC 1035) and icmp (RFC 792, RFC 4443).

The socket is connected: the kernel delivers packets of the backend only, and reports a closed port.
"""

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import Iterator

from lbmux.addresses import FAMILIES
from lbmux.health.probe import ProbeError, Target
from lbmux.plurals import counted
from lbmux.wire.header_layouts import DNS, DNS_QUESTION, ICMP_ECHO
from lbmux.wire.icmp_types import ECHO_REPLIES, ECHO_REQUESTS
from lbmux.wire.internet_checksum import checksum
from lbmux.wire.numbers import ICMP_BY_VERSION
from lbmux.wire.packet import ipv4_header_bytes

MAX_BYTES = 65535
RECURSION, RESPONSE, RESPONSE_CODE = 0x0100, 0x8000, 0x000F
"""Bits of the flags in a DNS header (RFC 1035, section 4.1.1)."""
TYPE_A, TYPE_NS, CLASS_IN = 1, 2, 1
_numbers = itertools.count()


@contextlib.contextmanager
def _socket(target: Target, kind: int, protocol: int = 0) -> Iterator[socket.socket]:
    with socket.socket(FAMILIES[target.dip.version], kind, protocol) as sock:
        sock.setblocking(False)
        if target.bind is not None:
            target.bind(sock)
        sock.connect((str(target.dip), target.port if kind == socket.SOCK_DGRAM else 0))
        yield sock


async def udp(target: Target) -> str:
    loop, expected = asyncio.get_running_loop(), target.health.expect
    with _socket(target, socket.SOCK_DGRAM) as sock:
        await loop.sock_sendall(sock, target.health.send.encode())
        answer = await loop.sock_recv(sock, MAX_BYTES)
    if expected is not None and expected.encode() not in answer:
        raise ProbeError(f"the answer does not contain {expected!r}")
    return f"answered {counted(len(answer), 'byte')}"


def query(number: int, name: str) -> bytes:
    """Build a DNS query for the A record of a name, or for the NS records of the root."""
    labels = [label.encode() for label in name.split(".") if label]
    wire = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    question = DNS_QUESTION.pack(**{"type": TYPE_A if labels else TYPE_NS, "class": CLASS_IN})
    return DNS.pack(identifier=number, flags=RECURSION, questions=1) + wire + question


async def dns(target: Target) -> str:
    """Send a DNS query (RFC 1035); return "answered". Raise ProbeError if the response code is not 0."""
    loop, number = asyncio.get_running_loop(), int.from_bytes(os.urandom(2))
    with _socket(target, socket.SOCK_DGRAM) as sock:
        await loop.sock_sendall(sock, query(number, target.health.query))
        while True:  # ignore anything that does not answer this query
            answer = await loop.sock_recv(sock, MAX_BYTES)
            if len(answer) < DNS.size:
                continue
            header = DNS.unpack(answer)
            if header.identifier == number and header.flags & RESPONSE:
                break
    if code := header.flags & RESPONSE_CODE:
        raise ProbeError(f"DNS error code {code}")
    return "answered"


async def icmp(target: Target) -> str:
    """Ping with a raw socket: a new network namespace does not allow ping sockets."""
    loop, version = asyncio.get_running_loop(), target.dip.version
    identifier, number = os.getpid() & 0xFFFF, next(_numbers) & 0xFFFF
    request = ICMP_ECHO.pack(type=ECHO_REQUESTS[version], identifier=identifier, sequence=number)
    request = ICMP_ECHO.replace(request, checksum=checksum(request))  # for IPv6 the kernel replaces it
    with _socket(target, socket.SOCK_RAW, ICMP_BY_VERSION[version]) as sock:
        await loop.sock_sendall(sock, request)
        while True:
            answer = await loop.sock_recv(sock, MAX_BYTES)
            start = ipv4_header_bytes(answer) if version == 4 else 0  # IPv4 raw sockets include the IP header
            if len(answer) >= start + ICMP_ECHO.size:
                reply = ICMP_ECHO.unpack(answer, start)
                if (reply.type, reply.identifier, reply.sequence) == (ECHO_REPLIES[version], identifier, number):
                    return "answered"
