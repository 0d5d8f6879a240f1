"""Traffic of users: HTTPS requests to a name, which their resolver maps to an address for each new connection.

    python -m lbmux.lab.https_users www.example.net 10.201.0.2 --connections 50 --short-per-s 10

Every fifth long connection uses HTTP/3.  It reports as lbmux.lab.connections does, with requests in place of lines,
and PoPs in place of servers.  A connection
that the server closes after an answer, as announced by `Connection: close`, is replaced; any other end is a failed
request.
"""

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from lbmux.daemons import process
from lbmux.lab.connections import Connection, Traffic, parser_of, run
from lbmux.lab.dns_queries import ask
from lbmux.lab.http3_client import connected
from lbmux.lab.lab import Lab
from lbmux.lab.traffic_client import Client, reporting

PORT, PATH = 443, "/whoami"
LATE_MS = 1000.0
"""A request over a wide-area network takes up to 0.7 s with a new connection."""
HTTP3_EVERY = 5
"""One of so many long connections uses HTTP/3, which costs much more CPU time."""
ATTEMPTS, AGAIN_S = 4, 0.25
"""How often a resolver is asked, and the pause before the second time; the next ones are longer."""
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Users(Traffic):
    """Users of one resolver."""

    def __init__(self, name: str, resolver: str, pause_s: float, late_ms: float = LATE_MS) -> None:
        super().__init__(name, PORT, pause_s, late_ms)
        self._name, self._resolver = name, resolver
        self._context = ssl.create_default_context()
        self._context.check_hostname, self._context.verify_mode = False, ssl.CERT_NONE

    async def open(self) -> Streams:
        """Resolve the name, and connect with TLS."""
        address = await self._resolve()
        return await asyncio.open_connection(address, PORT, ssl=self._context, server_hostname=self._name)

    async def _resolve(self) -> str:
        """Ask the resolver, again if it does not answer, as the stub resolver of a host does."""
        for attempt in range(ATTEMPTS):
            with contextlib.suppress(OSError):
                if addresses := await asyncio.to_thread(ask, self._resolver, self._name):
                    return addresses[0][0]
            await asyncio.sleep(attempt * AGAIN_S)
        raise ConnectionError("the resolver has no address")

    async def use(self, connection: Connection, turn_s: float) -> None:
        if connection.number % HTTP3_EVERY == HTTP3_EVERY - 1:
            await self._use_http3(connection, turn_s)
            return
        reader, writer = await self.open()
        while True:
            connection.local_port = writer.get_extra_info("sockname")[1]
            connection.backend, is_open = await self.request(reader, writer)
            self.took(connection.waited())
            connection.lines += 1
            await asyncio.sleep(turn_s + self.pause_s)
            turn_s = 0.0
            connection.wait()
            if not is_open:
                writer.close()
                reader, writer = await self.open()

    async def _use_http3(self, connection: Connection, turn_s: float) -> None:
        async with connected(await self._resolve(), PORT) as client:
            connection.local_port = client.local_port
            while True:
                body = await client.get(self._name, PATH)
                connection.backend = body.decode().partition("-")[0]
                self.took(connection.waited())
                connection.lines += 1
                await asyncio.sleep(turn_s + self.pause_s)
                turn_s = 0.0
                connection.wait()

    async def request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, bool]:
        """Send a request; return the PoP that answered, and whether the connection stays open."""
        writer.write(f"GET {PATH} HTTP/1.1\r\nHost: {self._name}\r\n\r\n".encode())
        status, headers = (await reader.readline()).decode(), dict[str, str]()
        while line := (await reader.readline()).decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()  # the last proxy is the user's
        if not status:
            raise ConnectionError("closed by the server")
        if " 200 " not in status:
            raise ConnectionError(status.strip())
        try:
            await reader.readexactly(int(headers["content-length"]))
        except EOFError as error:
            raise ConnectionError("closed within an answer") from error
        return headers["via"].split()[-1].partition("-")[0], headers.get("connection", "") != "close"

    async def ask_once(self) -> str:
        reader, writer = await self.open()
        with contextlib.closing(writer):
            return (await self.request(reader, writer))[0]


def merged(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge the reports of several nodes."""
    shorts = [one["short"] for one in reports]
    answered, failed = (sum((Counter(one[key]) for one in shorts), Counter[str]()) for key in ("answered", "failed"))
    return {
        "connections": [connection for one in reports for connection in one["connections"]],
        "short": {
            "answered": dict(answered), "failed": dict(failed), "longest_ms": max(one["longest_ms"] for one in shorts),
            "waiting": sum(one["waiting"] for one in shorts),
        },
        "trouble": max((one["trouble"] for one in reports if one["trouble"]), default=None),
    }  # fmt: skip


class Clients:
    """The users of several nodes."""

    def __init__(self, clients: list[Client]) -> None:
        self._clients = clients
        self.first = merged([client.first for client in clients])

    def report(self) -> dict[str, Any]:
        return merged([client.report() for client in self._clients])

    def report_once_answered(self, most_s: float) -> dict[str, Any]:
        return merged([client.report_once_answered(most_s) for client in self._clients])


@contextlib.contextmanager
def users(
    lab: Lab, resolvers: Mapping[str, str], name: str, connections: int, short_per_s: float, pause_ms: float
) -> Iterator[Clients]:
    """Run users within the context, the same number in each node of ``resolvers``, which has their resolvers."""
    count = len(resolvers)
    options = ("--connections", str(-(-connections // count)), "--short-per-s", str(short_per_s / count))
    with contextlib.ExitStack() as stack:
        yield Clients([
            stack.enter_context(reporting(
                lab, node, "lbmux.lab.https_users", name, resolver, *options, "--pause-ms", str(pause_ms)
            ))
            for node, resolver in resolvers.items()
        ])  # fmt: skip


def main() -> None:
    parser = parser_of(__doc__)
    parser.set_defaults(late_ms=LATE_MS)
    parser.add_argument("name")
    parser.add_argument("resolver", help="its address")
    options = parser.parse_args()
    process.run(run(Users(options.name, options.resolver, options.pause_ms / 1000, options.late_ms), options))


if __name__ == "__main__":
    main()
