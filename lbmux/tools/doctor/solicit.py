"""Resolve an address on a link without the kernel's neighbour table.

It sends ARP requests (RFC 826) or, for IPv6, neighbour solicitations (RFC 4861, sections 4.3, 4.4 and 7.2.2).
"""

import socket
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from pyroute2 import IPRoute

from lbmux.addresses import FAMILIES, Address
from lbmux.errors import SetupError
from lbmux.wire.header_layouts import ARP, ETHERNET, ETHERNET_BYTES, IPV6, IPV6_BYTES, LINK_OPTION, NEIGHBOUR
from lbmux.wire.icmp_types import V6_ADVERTISEMENT, V6_SOLICITATION
from lbmux.wire.numbers import ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ICMPV6_PROTOCOL
from lbmux.wire.packet import icmp_packet

CARRIED_IN = {4: ETHERTYPE_ARP, 6: ETHERTYPE_IPV6}
"""The Ethernet type of requests and replies, by the IP version."""
REQUEST, REPLY = 1, 2
ETHERNET_HARDWARE, MAC_BYTES, IPV4_ADDRESS_BYTES = 1, 6, 4
SOURCE_MAC, TARGET_MAC = 1, 2
HOPS = 255
"""A lower hop limit means that the packet may come from another link (RFC 4861, section 7.1)."""
BROADCAST = b"\xff" * 6
WAIT_S, TRIES = 0.25, 2
ReplyParser = Callable[[bytes], str | None]
"""Returns the MAC address that a frame gives for the address in question; None for any other frame."""


def who_has(interface: str, address: Address, source: Address | None = None) -> set[str]:
    """Return the MAC addresses that answer for an address; none where it is unspecified's."""
    asker = source or first_address(interface, address.version)
    kind = CARRIED_IN[address.version]
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind)) as sock:
            sock.bind((interface, kind))
            own = sock.getsockname()[4]
            question, parse = request_for(own, asker, address)
            for _ in range(TRIES):
                sock.send(question)
                if macs := _answers(sock, parse):
                    return macs
    except OSError as error:
        hint = "check that the interface exists and that this user has CAP_NET_RAW"
        raise SetupError(f"interface {interface}", f"cannot ask who has {address}: {error.strerror}", hint) from error
    return set()


def request_for(own: bytes, asker: Address, address: Address) -> tuple[bytes, ReplyParser]:
    """Return the request frame with source MAC address ``own``, and the function that parses replies."""
    if isinstance(address, IPv4Address):
        request = ARP.pack(
            hardware=ETHERNET_HARDWARE, protocol=ETHERTYPE_IPV4, hardware_bytes=MAC_BYTES,
            protocol_bytes=IPV4_ADDRESS_BYTES, operation=REQUEST, sender_mac=own, sender=asker.packed,
            target=address.packed,
        )  # fmt: skip
        return _ethernet(BROADCAST, own, 4) + request, lambda frame: parse_arp_reply(frame, address)
    # The solicited-node multicast address (RFC 4291, section 2.7.1) and its MAC address (RFC 2464, section 7).
    group = IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + address.packed[13:])
    message = NEIGHBOUR.pack(type=V6_SOLICITATION, target=address.packed)
    if asker != IPv6Address(0):  # otherwise it is duplicate address detection, and the source is unspecified
        message += LINK_OPTION.pack(type=SOURCE_MAC, length=1, mac=own)
    frame = _ethernet(b"\x33\x33" + group.packed[12:], own, 6) + icmp_packet(asker, group, message, hops=HOPS)
    return frame, lambda reply: parse_advertisement(reply, address)


def _ethernet(destination: bytes, source: bytes, version: int) -> bytes:
    return ETHERNET.pack(destination=destination, source=source, type=CARRIED_IN[version])


def parse_arp_reply(frame: bytes, address: Address) -> str | None:
    if len(frame) < ETHERNET_BYTES + ARP.size:
        return None
    reply = ARP.unpack(frame, ETHERNET_BYTES)
    return reply.sender_mac.hex(":") if (reply.operation, reply.sender) == (REPLY, address.packed) else None


def parse_advertisement(frame: bytes, address: Address) -> str | None:
    """Return the MAC address in an Ethernet frame with a neighbour advertisement (RFC 4861) of ``address``, or None."""
    message_at = ETHERNET_BYTES + IPV6_BYTES
    option_at = message_at + NEIGHBOUR.size
    if len(frame) < option_at:
        return None
    ip, message = IPV6.unpack(frame, ETHERNET_BYTES), NEIGHBOUR.unpack(frame, message_at)
    fields = ip.next, ip.hops, message.type, message.target
    if fields != (ICMPV6_PROTOCOL, HOPS, V6_ADVERTISEMENT, address.packed):
        return None
    if len(frame) >= option_at + LINK_OPTION.size:
        option = LINK_OPTION.unpack(frame, option_at)
        if option.type == TARGET_MAC:
            return str(option.mac.hex(":"))
    return str(ETHERNET.unpack(frame).source.hex(":"))


def _answers(sock: socket.socket, parse: ReplyParser) -> set[str]:
    """Return all replies that arrive in time: two hosts may claim the same address."""
    macs: set[str] = set()
    until = time.monotonic() + WAIT_S
    while (left := until - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            frame = sock.recv(2048)
        except TimeoutError:
            break
        if mac := parse(frame):
            macs.add(mac)
            until = min(until, time.monotonic() + WAIT_S / 5)  # a second owner would answer about as fast
    return macs


def first_address(interface: str, version: int) -> Address:
    """Return the interface's first address, or the unspecified one: the request is a probe then (RFC 5227, 4862)."""
    unspecified: Address = IPv4Address(0) if version == 4 else IPv6Address(0)
    with IPRoute() as ip:
        messages = ip.get_addr(family=FAMILIES[version], index=ip.link_lookup(ifname=interface)[0])
    text = messages[0].get_attr("IFA_LOCAL") or messages[0].get_attr("IFA_ADDRESS") if messages else None
    return type(unspecified)(text) if text else unspecified
