"""Flood a VIP with TCP ACKs that belong to no connection."""

import socket
import time
from collections.abc import Iterator
from ipaddress import ip_address

from lbmux.addresses import Address
from lbmux.wire.numbers import ACK, TCP_PROTOCOL
from lbmux.wire.packet import tcp_header, transport_packet

PACKETS, SECONDS = 20_000, 3.0
FIRST_PORT = 1024
"""The first source port.  The range ends below Linux's ephemeral ports (32768), so it hits no real connection."""
AT_ONCE = 100


def acknowledgments(client: Address, vip: Address, port: int, count: int = PACKETS) -> Iterator[bytes]:
    """IP packets with a bare ACK, each from the client's next port.  At most 31,744 flows differ."""
    for n in range(count):
        source_port = FIRST_PORT + n % (32768 - FIRST_PORT)
        header = tcp_header(source_port, port, ACK, 1000 + n, 2000 + n, window=1024)
        yield transport_packet(client, vip, TCP_PROTOCOL, header)


def flood(vip: str, port: int, count: int = PACKETS, seconds: float = SECONDS) -> None:
    """Send the flood from this machine, spread evenly over ``seconds``.  Needs CAP_NET_RAW."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((vip, port))
        client = ip_address(probe.getsockname()[0])
    packets = list(acknowledgments(client, ip_address(vip), port, count))
    begun = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        for at in range(0, count, AT_ONCE):
            for packet in packets[at : at + AT_ONCE]:
                sock.sendto(packet, (vip, 0))
            time.sleep(max(0.0, begun + seconds * (at + AT_ONCE) / count - time.monotonic()))
