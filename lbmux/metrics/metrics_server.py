"""The HTTP server for Prometheus, in its own threads.

The event loop, which handles packets, only takes the reading.  A thread formats it and serves the connection, one
scrape at a time.
"""

import asyncio
import contextlib
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any, Self

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from lbmux.addresses import endpoint
from lbmux.errors import SetupError
from lbmux.metrics.families import Reading, exposition

PATH, LOCAL = "/metrics", "127.0.0.1"
ANSWER_S, IDLE_S = 5.0, 30.0
"""How long a scrape waits for the event loop, and how long a connection may be idle, in seconds."""
MOST_CONNECTIONS = 128
"""A new connection beyond these ends the oldest: silent ones must neither lock Prometheus out nor use up descriptors,
which the daemon needs for its probes."""


class MetricsServer:
    """Serves metrics within ``async with``; ``read`` runs on the event loop and must not block."""

    def __init__(self, where: str, read: Callable[[], Awaitable[Reading]]) -> None:
        """``where``: [HOST:]PORT."""
        self._where, self._read = where, read
        self._scraping = threading.Lock()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        try:
            self._server = _Server(_endpoint(self._where), self._text)
        except (OSError, ValueError) as error:
            raise SetupError(f"metrics on {self._where}", str(error), "choose another with --metrics") from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        # In a thread: a scrape in progress still needs an answer from this loop.
        await asyncio.to_thread(self._server.shutdown)
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def _text(self) -> bytes:
        # Keep the thread's priority: if it waits for a core while it holds the interpreter's lock, packets wait too.
        with self._scraping:
            reading = asyncio.run_coroutine_threadsafe(_awaited(self._read()), self._loop).result(ANSWER_S)
            return exposition(reading)


async def _awaited(reading: Awaitable[Reading]) -> Reading:
    return await reading


class _Server(ThreadingTCPServer):
    """Replaces http.server's class, which looks up this machine's name in the DNS before it listens."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = MOST_CONNECTIONS
    """Beyond it (the default is 5) the kernel drops a SYN, which the client repeats after a second."""

    def __init__(self, endpoint: tuple[socket.AddressFamily, tuple[Any, ...]], text: Callable[[], bytes]) -> None:
        self.address_family, address = endpoint
        self.text = text
        self._open = deque[socket.socket]()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.append(request)
        if len(self._open) > MOST_CONNECTIONS:
            with contextlib.suppress(OSError, IndexError):  # it ended meanwhile
                self._open.popleft().shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with contextlib.suppress(ValueError):
            self._open.remove(request)
        super().shutdown_request(request)


class _Handler(BaseHTTPRequestHandler):
    timeout = IDLE_S
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != PATH:
            self.send_error(HTTPStatus.NOT_FOUND, f"metrics are at {PATH}")
            return
        try:
            text = self.server.text()
        except TimeoutError:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "the event loop did not answer in time")
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: scrapes are not logged."""


def _endpoint(where: str) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    host, port = endpoint(where, LOCAL)
    results = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return results[0][0], results[0][4]
