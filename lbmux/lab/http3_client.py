"""A client of HTTP/3 with one connection, by aioquic; `lbmux.lab.https_users` has some among its connections."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent

IDLE_S, TIMEOUT_S = 60.0, 15.0
"""The connection's idle timeout, and how long a request may take."""


class Http3Client(QuicConnectionProtocol):
    """``local_port``: its port, which the connection keeps."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._http = H3Connection(self._quic)
        self._bodies: dict[int, bytes] = {}
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self.local_port = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.local_port = transport.get_extra_info("sockname")[1]

    async def get(self, authority: str, path: str) -> bytes:
        """Return the body of the answer; raise ConnectionError or TimeoutError without one."""
        stream = self._quic.get_next_available_stream_id()
        headers = {":method": "GET", ":scheme": "https", ":authority": authority, ":path": path}
        self._http.send_headers(
            stream, [(name.encode(), text.encode()) for name, text in headers.items()], end_stream=True
        )
        self._bodies[stream] = b""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[stream] = answer
        self.transmit()
        async with asyncio.timeout(TIMEOUT_S):
            return await answer

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(ConnectionError(event.reason_phrase or "closed by the server"))
        for received in self._http.handle_event(event):
            if isinstance(received, DataReceived) and received.stream_id in self._answers:
                self._bodies[received.stream_id] += received.data
                if received.stream_ended:
                    self._answers.pop(received.stream_id).set_result(self._bodies.pop(received.stream_id))


@contextlib.asynccontextmanager
async def connected(address: str, port: int) -> AsyncIterator[Http3Client]:
    """Connect within the context; raise ConnectionError if that fails. The server's certificate is not verified."""
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE, idle_timeout=IDLE_S)
    async with connect(address, port, configuration=configuration, create_protocol=Http3Client) as client:
        assert isinstance(client, Http3Client)
        yield client
