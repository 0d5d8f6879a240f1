"""Asks DNS servers, perhaps with a client subnet, as plainly as can be (RFC 1035, RFC 7871)."""

import os
import socket
import struct
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

TYPES = {"A": 1, "AAAA": 28}
OPT, ECS = 41, 8


def query(name: str, kind: str, subnet: str | None) -> bytes:
    """Return a query; ``subnet`` goes into it as a client subnet."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = labels + b"\0" + struct.pack("!HH", TYPES[kind], 1)
    option = _option(ip_network(subnet)) if subnet else b""
    edns = b"\0" + struct.pack("!HHIH", OPT, 1232, 0, len(option)) + option
    return os.urandom(2) + struct.pack("!HHHHH", 0x0100, 1, 0, 0, 1) + question + edns


def _option(subnet: IPv4Network | IPv6Network) -> bytes:
    address = subnet.network_address.packed[: (subnet.prefixlen + 7) // 8]
    family = {4: 1, 6: 2}[subnet.version]
    return struct.pack("!HHHBB", ECS, 4 + len(address), family, subnet.prefixlen, 0) + address


def answers(message: bytes) -> list[tuple[str, int]]:
    """Return addresses and TTLs of an answer; raise ConnectionError for one without success."""
    _, flags, _, count, _, _ = struct.unpack("!HHHHHH", message[:12])
    if flags & 0xF:
        raise ConnectionError(f"response code {flags & 0xF}")
    at, found = _after_name(message, 12) + 4, list[tuple[str, int]]()
    for _ in range(count):
        at = _after_name(message, at)
        kind, _, ttl_s, length = struct.unpack("!HHIH", message[at : at + 10])
        if kind in TYPES.values():
            found.append((str(ip_address(message[at + 10 : at + 10 + length])), ttl_s))
        at += 10 + length
    return found


def _after_name(message: bytes, at: int) -> int:
    while message[at]:
        if message[at] >= 0xC0:  # compressed
            return at + 2
        at += 1 + message[at]
    return at + 1


def ask(
    server: str, name: str, kind: str = "A", subnet: str | None = None, source: str = "", port: int = 53
) -> list[tuple[str, int]]:
    """Ask a server from an address of this machine; return addresses and TTLs."""
    with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((source, 0))
        client.settimeout(3)
        client.connect((server, port))
        client.send(query(name, kind, subnet))
        return answers(client.recv(4096))
