"""A flash crowd: many clients, each with an address of its own, that open connections, get an answer and go."""

import asyncio
import contextlib
import socket
import time
from ipaddress import ip_network

ADDRESSES = ip_network("198.51.100.128/25")
"""The crowd's addresses, in the client's network."""
REQUEST = b"GET /whoami HTTP/1.0\r\n\r\n"
PACKETS = 5
"""Packets that a client sends: SYN, ACK, the request, ACK of the answer, FIN."""
PATIENCE_S, MOST = 1.5, 400
"""A client gives up after this time.  So many come in a second at most: a lab has few CPUs."""


def crowd(vip: str, port: int, per_s: float, seconds: float) -> int:
    """Open connections at this rate, and return how many were answered.  The addresses have to be the machine's."""
    return asyncio.run(_crowd(vip, port, min(per_s, MOST), seconds))


async def _crowd(vip: str, port: int, per_s: float, seconds: float) -> int:
    begun, clients = time.monotonic(), list[asyncio.Task[bool]]()
    sources = [str(address) for address in ADDRESSES.hosts()]
    for number in range(round(per_s * seconds)):
        clients.append(asyncio.create_task(_client(sources[number % len(sources)], vip, port)))
        await asyncio.sleep(max(0.0, begun + (number + 1) / per_s - time.monotonic()))
    return sum(await asyncio.gather(*clients))


async def _client(source: str, vip: str, port: int) -> bool:
    """Return whether the server answered in time."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(vip, port, family=socket.AF_INET, local_addr=(source, 0))
            with contextlib.closing(writer):
                writer.write(REQUEST)
                return bool(await reader.read())
    return False
