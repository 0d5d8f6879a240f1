"""ARP by hand: who answers for an address on a link, whatever the kernel believes (RFC 826)."""

import socket
import struct
import time
from ipaddress import IPv4Address

from pyroute2 import IPRoute

from lbmux.errors import SetupError

ETHERTYPE = 0x0806
REQUEST, REPLY = 1, 2
PACKET = struct.Struct("!HHBBH6s4s6s4s")
HEADER_BYTES = 14
BROADCAST = b"\xff" * 6
WAIT_S, TRIES = 0.25, 2


def who_has(interface: str, address: IPv4Address, source: IPv4Address | None = None) -> set[str]:
    """The MAC addresses that answer for an address; none where it is nobody's."""
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE)) as sock:
            sock.bind((interface, ETHERTYPE))
            own = sock.getsockname()[4]
            asker = (source or first_address(interface)).packed
            request = PACKET.pack(1, 0x0800, 6, 4, REQUEST, own, asker, bytes(6), address.packed)
            for _ in range(TRIES):
                sock.send(BROADCAST + own + struct.pack("!H", ETHERTYPE) + request)
                if found := _answers(sock, address.packed):
                    return found
    except OSError as error:
        raise SetupError(f"interface {interface}", f"cannot ask by ARP: {error.strerror}") from error
    return set()


def _answers(sock: socket.socket, address: bytes) -> set[str]:
    """All that come in the time: two hosts may have one address."""
    found: set[str] = set()
    until = time.monotonic() + WAIT_S
    while (left := until - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            frame = sock.recv(2048)
        except TimeoutError:
            break
        if len(frame) >= HEADER_BYTES + PACKET.size:
            *_, operation, mac, sender, _, _ = PACKET.unpack_from(frame, HEADER_BYTES)
            if (operation, sender) == (REPLY, address):
                found.add(mac.hex(":"))
                until = min(until, time.monotonic() + WAIT_S / 5)  # another one would answer about as fast
    return found


def first_address(interface: str) -> IPv4Address:
    """Any, where the interface has none: RFC 5227 has such a question, a probe, from 0.0.0.0."""
    with IPRoute() as ip:
        found = ip.get_addr(family=socket.AF_INET, index=ip.link_lookup(ifname=interface)[0])
    return IPv4Address(found[0].get_attr("IFA_LOCAL") if found else 0)
