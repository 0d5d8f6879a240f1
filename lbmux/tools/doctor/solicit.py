"""Resolve an address on a link without the kernel's neighbour table.

It sends ARP requests (RFC 826) or, for IPv6, neighbour solicitations (RFC 4861, sections 4.3, 4.4 and 7.2.2).
"""

import socket
import struct
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from pyroute2 import IPRoute

from lbmux.addresses import FAMILIES, Address
from lbmux.errors import SetupError
from lbmux.wire.internet_checksum import with_checksum

ETHERTYPES = {4: 0x0806, 6: 0x86DD}
REQUEST, REPLY = 1, 2
ARP = struct.Struct("!HHBBH6s4s6s4s")
IPV6 = struct.Struct("!IHBB16s16s")
DISCOVERY = struct.Struct("!BBHI16s")
OPTION = struct.Struct("!BB6s")
SOLICITATION, ADVERTISEMENT = 135, 136
SOURCE_MAC, TARGET_MAC = 1, 2
HOPS = 255
"""A lower hop limit means that the packet may come from another link (RFC 4861, section 7.1)."""
HEADER_BYTES = 14
BROADCAST = b"\xff" * 6
WAIT_S, TRIES = 0.25, 2
ReplyParser = Callable[[bytes], str | None]
"""Returns the MAC address that a frame gives for the address in question; None for any other frame."""


def who_has(interface: str, address: Address, source: Address | None = None) -> set[str]:
    """The MAC addresses that answer for an address; none where it is unspecified's."""
    asker = source or first_address(interface, address.version)
    kind = ETHERTYPES[address.version]
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind)) as sock:
            sock.bind((interface, kind))
            own = sock.getsockname()[4]
            question, parse = request_for(own, asker, address)
            for _ in range(TRIES):
                sock.send(question)
                if found := _answers(sock, parse):
                    return found
    except OSError as error:
        hint = "check that the interface exists and that this user has CAP_NET_RAW"
        raise SetupError(f"interface {interface}", f"cannot ask who has {address}: {error.strerror}", hint) from error
    return set()


def request_for(own: bytes, asker: Address, address: Address) -> tuple[bytes, ReplyParser]:
    """The request frame with source MAC address ``own``, and the function that parses replies."""
    if isinstance(address, IPv4Address):
        request = ARP.pack(1, 0x0800, 6, 4, REQUEST, own, asker.packed, bytes(6), address.packed)
        return _ethernet(BROADCAST, own, 4) + request, lambda frame: parse_arp_reply(frame, address)
    # The solicited-node multicast address (RFC 4291, section 2.7.1) and its MAC address (RFC 2464, section 7).
    group = IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + address.packed[13:])
    message = DISCOVERY.pack(SOLICITATION, 0, 0, 0, address.packed)
    if asker != IPv6Address(0):  # else it is a probe whether the address is free, and names unspecified
        message += OPTION.pack(SOURCE_MAC, 1, own)
    message = with_checksum(asker, group, socket.IPPROTO_ICMPV6, message)
    header = IPV6.pack(6 << 28, len(message), socket.IPPROTO_ICMPV6, HOPS, asker.packed, group.packed)
    return _ethernet(b"\x33\x33" + group.packed[12:], own, 6) + header + message, lambda f: parse_advertisement(
        f, address
    )


def _ethernet(destination: bytes, source: bytes, version: int) -> bytes:
    return destination + source + ETHERTYPES[version].to_bytes(2, "big")


def parse_arp_reply(frame: bytes, address: Address) -> str | None:
    if len(frame) < HEADER_BYTES + ARP.size:
        return None
    *_, operation, mac, sender, _, _ = ARP.unpack_from(frame, HEADER_BYTES)
    return mac.hex(":") if (operation, sender) == (REPLY, address.packed) else None


def parse_advertisement(frame: bytes, address: Address) -> str | None:
    if len(frame) < HEADER_BYTES + IPV6.size + DISCOVERY.size:
        return None
    _, _, protocol, hops, _, _ = IPV6.unpack_from(frame, HEADER_BYTES)
    kind, _, _, _, target = DISCOVERY.unpack_from(frame, HEADER_BYTES + IPV6.size)
    if (protocol, hops, kind, target) != (socket.IPPROTO_ICMPV6, HOPS, ADVERTISEMENT, address.packed):
        return None
    option = frame[HEADER_BYTES + IPV6.size + DISCOVERY.size :]
    if len(option) >= OPTION.size and option[0] == TARGET_MAC:
        return option[2:8].hex(":")
    return frame[6:12].hex(":")


def _answers(sock: socket.socket, parse: ReplyParser) -> set[str]:
    """All replies that arrive in time: two hosts may claim the same address."""
    found: set[str] = set()
    until = time.monotonic() + WAIT_S
    while (left := until - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            frame = sock.recv(2048)
        except TimeoutError:
            break
        if mac := parse(frame):
            found.add(mac)
            until = min(until, time.monotonic() + WAIT_S / 5)  # a second owner would answer about as fast
    return found


def first_address(interface: str, version: int) -> Address:
    """The interface's first address, or the unspecified one, which makes the request a probe (RFC 5227, RFC 4862)."""
    unspecified: Address = IPv4Address(0) if version == 4 else IPv6Address(0)
    with IPRoute() as ip:
        found = ip.get_addr(family=FAMILIES[version], index=ip.link_lookup(ifname=interface)[0])
    text = found[0].get_attr("IFA_LOCAL") or found[0].get_attr("IFA_ADDRESS") if found else None
    return type(unspecified)(text) if text else unspecified
