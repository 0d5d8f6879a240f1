"""A server of the lab: HTTP, and an echo of lines by TCP and UDP.  All answer with the server's name.

    GET /whoami        its name
    GET /bytes/N       N bytes, the same from every server
    PUT /digest        the SHA-256 of the request's body, in hexadecimal

The echo answers each line ``TEXT`` with ``NAME TEXT``.  It repeats the answer to ``later SECONDS`` after that time,
even if the client has half-closed the connection.
"""

import argparse
import asyncio
import hashlib
import re
from collections.abc import Sequence

from aiohttp import web

from lbmux.daemons.process import notify, run, stop_event

CHUNK_BYTES = 1 << 16
PATTERN = b"".join(hashlib.sha256(index.to_bytes(4, "big")).digest() for index in range(CHUNK_BYTES // 32))
MOST_BYTES = 1 << 30
LATER = re.compile(rb"later ([0-9]{1,5}(?:\.[0-9]{1,3})?)\n")


def body_digest(length: int) -> str:
    """Return the SHA-256 of ``/bytes/length``."""
    state = hashlib.sha256()
    for at in range(0, length, CHUNK_BYTES):
        state.update(PATTERN[: length - at])
    return state.hexdigest()


class Echo(asyncio.DatagramProtocol):
    """The echo of lines by UDP."""

    def __init__(self, name: str) -> None:
        self._name = name

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(self._name.encode() + b" " + data, addr)


class Server:
    def __init__(self, name: str) -> None:
        self.name = name

    def application(self) -> web.Application:
        application = web.Application(client_max_size=MOST_BYTES)
        application.add_routes(
            [
                web.get("/whoami", self.whoami),
                web.get("/bytes/{length:[0-9]{1,10}}", self.send_bytes),
                web.put("/digest", self.digest),
            ]
        )
        return application

    async def whoami(self, request: web.Request) -> web.Response:
        return web.Response(text=self.name)

    async def send_bytes(self, request: web.Request) -> web.StreamResponse:
        length = min(int(request.match_info["length"]), MOST_BYTES)
        response = web.StreamResponse(headers={"Content-Length": str(length)})
        await response.prepare(request)
        for at in range(0, length, CHUNK_BYTES):
            await response.write(PATTERN[: length - at])
        await response.write_eof()
        return response

    async def digest(self, request: web.Request) -> web.Response:
        state = hashlib.sha256()
        async for chunk in request.content.iter_chunked(CHUNK_BYTES):
            state.update(chunk)
        return web.Response(text=state.hexdigest())

    async def echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(self.name.encode() + b" " + line)
                await writer.drain()
                if later := LATER.fullmatch(line):
                    await asyncio.sleep(float(later[1]))
                    writer.write(self.name.encode() + b" " + line)
                    await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


async def serve(name: str, addresses: Sequence[str], web_port: int, echo_port: int) -> None:
    """Serve until SIGTERM."""
    server = Server(name)
    runner = web.AppRunner(server.application(), access_log=None)
    await runner.setup()
    for address in addresses:
        await web.TCPSite(runner, address, web_port, backlog=1024).start()
    echo = await asyncio.start_server(server.echo, addresses, echo_port, backlog=1024)
    loop = asyncio.get_running_loop()
    for address in addresses:
        await loop.create_datagram_endpoint(lambda: Echo(name), (address, echo_port))
    stop = stop_event()
    notify("READY=1")
    await stop.wait()
    echo.close()
    await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--address", required=True, action="append", help="may be given more than once")
    parser.add_argument("--web-port", type=int, required=True)
    parser.add_argument("--echo-port", type=int, required=True)
    arguments = parser.parse_args()
    run(serve(arguments.name, arguments.address, arguments.web_port, arguments.echo_port))


if __name__ == "__main__":
    main()
