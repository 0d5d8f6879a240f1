"""A minimal DNS client, with the client-subnet option (RFC 1035, RFC 7871)."""

import os
import socket
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from lbmux.wire.header_layouts import DNS, DNS_CLIENT_SUBNET, DNS_QUESTION, DNS_RECORD

TYPES = {"A": 1, "AAAA": 28}
OPT, CLIENT_SUBNET, CLASS_IN, RECURSION = 41, 8, 1, 0x100
LARGEST_ANSWER = 1232


def query(name: str, kind: str, subnet: str | None) -> bytes:
    """Return a query; ``subnet`` goes into it as a client subnet."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = labels + b"\0" + DNS_QUESTION.pack(**{"type": TYPES[kind], "class": CLASS_IN})
    option = _option(ip_network(subnet)) if subnet else b""
    edns = b"\0" + DNS_RECORD.pack(**{"type": OPT, "class": LARGEST_ANSWER, "length": len(option)}) + option
    header = DNS.pack(identifier=int.from_bytes(os.urandom(2), "big"), flags=RECURSION, questions=1, additional=1)
    return header + question + edns


def _option(subnet: IPv4Network | IPv6Network) -> bytes:
    address = subnet.network_address.packed[: (subnet.prefixlen + 7) // 8]
    fields = {"length": 4 + len(address), "family": {4: 1, 6: 2}[subnet.version], "source_prefix": subnet.prefixlen}
    return DNS_CLIENT_SUBNET.pack(option=CLIENT_SUBNET, **fields) + address


def answers(message: bytes) -> list[tuple[str, int]]:
    """Return the addresses and TTLs in an answer. Raise ConnectionError if its response code is not 0."""
    header = DNS.unpack(message)
    if header.flags & 0xF:
        raise ConnectionError(f"response code {header.flags & 0xF}")
    at, addresses = _after_name(message, DNS.size) + DNS_QUESTION.size, list[tuple[str, int]]()
    for _ in range(header.answers):
        at = _after_name(message, at)
        record = DNS_RECORD.unpack(message, at)
        at += DNS_RECORD.size
        if record.type in TYPES.values():
            addresses.append((str(ip_address(message[at : at + record.length])), record.ttl))
        at += record.length
    return addresses


def _after_name(message: bytes, at: int) -> int:
    while message[at]:
        if message[at] >= 0xC0:  # compressed
            return at + 2
        at += 1 + message[at]
    return at + 1


def ask(
    server: str, name: str, kind: str = "A", subnet: str | None = None, source: str = "", port: int = 53
) -> list[tuple[str, int]]:
    """Ask a server, from the address ``source`` if it is given. Return addresses and TTLs in seconds."""
    with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((source, 0))
        client.settimeout(3)
        client.connect((server, port))
        client.send(query(name, kind, subnet))
        return answers(client.recv(4096))
