"""UDP traffic: long flows to an echo service that are always in use, and a stream of short ones.

    python -m lbmux.lab.datagrams 192.0.2.1 7 --connections 50

It reports as lbmux.lab.connections does, with flows in place of connections. A client sends a line again if it gets no
answer, so a lost datagram is a stall. A flow is broken if another server answers, or if the server has no such port.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

from lbmux.daemons import process
from lbmux.lab.connections import Connection, Traffic, parser_of, run

AGAIN_S = 0.2
"""Time without an answer after which a line is sent again."""
MOST_BYTES = 2048


class Datagrams(Traffic):
    @contextlib.contextmanager
    def _socket(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
            flow.setblocking(False)
            flow.connect(self._to)
            yield flow

    async def use(self, connection: Connection, turn_s: float) -> None:
        with self._socket() as flow:
            connection.local_port = flow.getsockname()[1]
            while True:
                name = await self._ask(flow, str(connection.lines))
                self.took(connection.waited())
                if name != (connection.backend or name):
                    raise ConnectionError(f"{name} answers for {connection.backend}")
                connection.backend = name
                connection.lines += 1
                await asyncio.sleep(turn_s + self.pause_s)
                turn_s = 0.0
                connection.wait()

    async def ask_once(self) -> str:
        with self._socket() as flow:
            return await self._ask(flow, "0")

    async def _ask(self, flow: socket.socket, text: str) -> str:
        """Send a line until it is answered, and return the server's name."""
        while True:
            await asyncio.get_running_loop().sock_sendall(flow, text.encode() + b"\n")
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(self._answer_to(flow, text), AGAIN_S)

    async def _answer_to(self, flow: socket.socket, wanted: str) -> str:
        """Wait for the answer to a line, and return the server's name. Late answers to earlier lines do not count."""
        while True:
            answer = await asyncio.get_running_loop().sock_recv(flow, MOST_BYTES)
            name, _, text = answer.decode().strip().partition(" ")
            if text == wanted:
                return name


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    process.run(run(Datagrams(options.address, options.port, options.pause_ms / 1000, options.late_ms), options))


if __name__ == "__main__":
    main()
