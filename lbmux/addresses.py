"""Addresses and ports: text to integer and back. This module alone defines their byte order.

Only the edges use text. Inside, an address is the integer that a little-endian machine loads from the wire:

- an IP address: its 16 network-order bytes as two unsigned 64-bit integers `(high, low)`, each the
  little-endian view of 8 bytes. IPv4 is mapped (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2), so that one
  table serves both: `high` is 0, and `low` is `wire32 << 32 | 0xFFFF0000`.
- `wire32`: the little-endian view of the four bytes of an IPv4 address.
- a port: the little-endian view of its two bytes.
- a MAC: the little-endian view of its six bytes, in the lower 48 bits of an integer.

The data path therefore loads, compares and stores without swapping bytes.
"""

import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
"""The socket's address family for each IP version."""

MAPPED_PREFIX = b"\x00" * 10 + b"\xff\xff"
MAPPED_LOW = 0xFFFF0000
"""The lower 32 bits of `low` in every mapped IPv4 address."""

_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")


def to_pair(address: Address | str) -> tuple[int, int]:
    """Return the `(high, low)` of an address. Raise ValueError if the text is not an address."""
    if isinstance(address, str):
        address = ip_address(address)
    packed = address.packed if isinstance(address, IPv6Address) else MAPPED_PREFIX + address.packed
    return int.from_bytes(packed[:8], "little"), int.from_bytes(packed[8:], "little")


def from_pair(high: int, low: int) -> Address:
    """Return the address of `(high, low)`: an IPv4Address if it is mapped."""
    packed = high.to_bytes(8, "little") + low.to_bytes(8, "little")
    return IPv4Address(packed[12:]) if packed.startswith(MAPPED_PREFIX) else IPv6Address(packed)


def to_wire32(address: IPv4Address | str) -> int:
    """Return an IPv4 address as a little-endian machine loads it from a header."""
    return int.from_bytes(IPv4Address(address).packed, "little")


def from_wire32(wire: int) -> IPv4Address:
    return IPv4Address(wire.to_bytes(4, "little"))


def port_to_wire(port: int) -> int:
    """Return a port as a little-endian machine loads it from a header: 80 is 0x5000."""
    return int.from_bytes(port.to_bytes(2, "big"), "little")


def port_from_wire(wire: int) -> int:
    return int.from_bytes(wire.to_bytes(2, "little"), "big")


def endpoint(text: str, host: str) -> tuple[str, int]:
    """Split `[HOST:]PORT` into host and port. An IPv6 address may have brackets. ``host`` is the default host.

    Raise ValueError if the brackets are not a pair, or if the port is not a number from 0 to 65535; the resolver would
    take 99999 for 34463.
    """
    host_text, _, port = text.rpartition(":")
    if host_text.startswith("[") and host_text.endswith("]"):
        host_text = host_text[1:-1]
    if "[" in host_text or "]" in host_text:
        raise ValueError(f"{text!r} is not [HOST:]PORT: its brackets are not a pair around an IPv6 address")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError(f"{text!r} is not [HOST:]PORT, with a port of 0 to 65535")
    return host_text or host, int(port)


def mac_to_int(text: str) -> int:
    """Return `02:00:00:00:00:01` (or with dashes) as a 48-bit integer. Raise ValueError for any other text."""
    if not _MAC.fullmatch(text):
        raise ValueError(f"{text!r} is not a MAC address")
    return int.from_bytes(bytes.fromhex(re.sub("[:-]", "", text)), "little")


def mac_from_int(mac: int) -> str:
    return mac.to_bytes(6, "little").hex(":")
