"""Packets that no connection knows: acknowledgments in mid-connection, of flows that are invented, for a VIP."""

import socket
import time
from collections.abc import Iterator
from ipaddress import ip_address

from lbmux.addresses import Address
from lbmux.slowpath.resets import ACK, HEADER, TCP_BYTES
from lbmux.wire.internet_checksum import TCP, with_checksum
from lbmux.wire.packet import ip_packet

PACKETS, SECONDS = 20_000, 3.0
FIRST_PORT = 1024
"""Of the client; below those that Linux gives to connections (32768), so that no real one is met."""
AT_ONCE = 100


def acknowledgments(client: Address, vip: Address, port: int, count: int = PACKETS) -> Iterator[bytes]:
    """Packets without data, each from another port of the client's; 31,744 at most are of different flows."""
    for n in range(count):
        source_port = FIRST_PORT + n % (32768 - FIRST_PORT)
        header = HEADER.pack(source_port, port, 1000 + n, 2000 + n, TCP_BYTES // 4 << 4, ACK, 1024, 0, 0)
        yield ip_packet(client, vip, TCP, with_checksum(client, vip, TCP, header))


def flood(vip: str, port: int, count: int = PACKETS, seconds: float = SECONDS) -> None:
    """Send them from this machine, evenly over some seconds."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.connect((vip, port))
        client = ip_address(asked.getsockname()[0])
    packets = list(acknowledgments(client, ip_address(vip), port, count))
    begun = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        for at in range(0, count, AT_ONCE):
            for packet in packets[at : at + AT_ONCE]:
                sock.sendto(packet, (vip, 0))
            time.sleep(max(0.0, begun + seconds * (at + AT_ONCE) / count - time.monotonic()))
