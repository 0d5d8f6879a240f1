"""Probes over TCP: tcp connects, tls completes a handshake, http and https send a GET request."""

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

from lbmux.addresses import FAMILIES
from lbmux.health.probe import ProbeError, Target

MAX_BYTES = 65536
"""The part of a response that is read."""


@functools.cache
def _context(verify: bool) -> ssl.SSLContext:
    """Return a cached context: reading the trusted certificates takes milliseconds."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@contextlib.asynccontextmanager
async def _connection(
    target: Target, encrypted: bool
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    context = _context(target.health.verify) if encrypted else None
    name = target.health.host or str(target.dip) if encrypted else None
    with contextlib.ExitStack() as stack:
        where: dict[str, Any] = {"host": str(target.dip), "port": target.port}
        if target.bind is not None:
            sock = stack.enter_context(socket.socket(FAMILIES[target.dip.version]))
            sock.setblocking(False)
            target.bind(sock)
            await asyncio.get_running_loop().sock_connect(sock, (str(target.dip), target.port))
            where = {"sock": sock}
        reader, writer = await asyncio.open_connection(**where, ssl=context, server_hostname=name, limit=MAX_BYTES)
        # Abort instead of waiting: a server that does not close the connection cannot delay the probe.
        stack.callback(writer.transport.abort)
        yield reader, writer


async def tcp(target: Target) -> str:
    async with _connection(target, encrypted=False):
        return "connected"


async def tls(target: Target) -> str:
    async with _connection(target, encrypted=True) as (_, writer):
        return f"{writer.get_extra_info('ssl_object').version()} handshake"


async def http(target: Target) -> str:
    """Send a GET with HTTP/1.0, so that the body is not chunked and ends with the connection (RFC 1945)."""
    health = target.health
    default = f"[{target.dip}]" if target.dip.version == 6 else str(target.dip)
    request = f"GET {health.path} HTTP/1.0\r\nHost: {health.host or default}\r\nUser-Agent: lbmux\r\n\r\n"
    async with _connection(target, encrypted=health.kind == "https") as (reader, writer):
        writer.write(request.encode())
        line = (await reader.readline()).split(maxsplit=2)
        if len(line) < 2 or not line[0].startswith(b"HTTP/") or not line[1].isdigit():
            raise ProbeError("the answer is not HTTP")
        if int(line[1]) != health.status:
            raise ProbeError(f"status {int(line[1])} instead of {health.status}")
        if health.body is not None and not await _contains(reader, health.body.encode()):
            raise ProbeError(f"the body does not contain {health.body!r}")
        return f"status {health.status}"


async def _contains(reader: asyncio.StreamReader, wanted: bytes) -> bool:
    while (await reader.readline()).strip():  # the headers
        pass
    body = b""
    while len(body) < MAX_BYTES and (some := await reader.read(MAX_BYTES)):
        body += some
        if wanted in body:
            return True
    return False
