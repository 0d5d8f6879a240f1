"""Servers on 127.0.0.1 for probes to be tried on, in the test's own event loop."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address
from typing import Any

from lbmux.addresses import Address
from lbmux.config.health_models import Health
from lbmux.health.probe import Target, attempt
from lbmux.health.probe_kinds import KINDS

LOCAL = IPv4Address("127.0.0.1")


@contextlib.asynccontextmanager
async def stream_server(answer: bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Answers whatever ends with an empty line; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, str(LOCAL), 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


class _Answering(asyncio.DatagramProtocol):
    def __init__(self, answers: Callable[[bytes], list[bytes]]) -> None:
        self._answers = answers

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, source: Any) -> None:
        for answer in self._answers(data):
            self._transport.sendto(answer, source)


@contextlib.asynccontextmanager
async def datagram_server(answers: Callable[[bytes], list[bytes]]) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Answering(answers), (str(LOCAL), 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


async def probe(port: int, dip: Address = LOCAL, **settings: Any) -> tuple[bool, str]:
    health = Health(**settings)
    return await attempt(KINDS[health.kind], Target(dip, port, health))
