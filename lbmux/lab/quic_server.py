"""An HTTP/3 server of the lab whose releases break no connection, by aioquic.

    python -m lbmux.lab.quic_server BASE NAME ADDRESS PORT

A new process takes the socket from the one that serves at BASE.sock, and the old one ends with its last connection.
Meanwhile packets of its connections arrive at the new process, which has the socket: that passes packets with
connection ids that are not its own back to the old one, which answers by its copy of the socket.  Facebook's proxies do
the same (Naseer et al., "Zero Downtime Release", SIGCOMM 2020).
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.buffer import Buffer  # type: ignore[attr-defined]  # it has no __all__
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE, QuicConfiguration
from aioquic.quic.events import QuicEvent
from aioquic.quic.packet import QuicPacketType, pull_quic_header

from lbmux.daemons.process import notify, run, stop_event
from lbmux.lab.tls_proxy import certificate

MOST_BYTES, AT_ONCE = 1 << 17, 64
"""The largest message between two processes in bytes, and the number of packets that are read at a time."""
DRAINED_POLL_S = 0.1
ADDRESS_BYTES = 2
Address = tuple[Any, ...]


class Socket:
    """A UDP socket in place of asyncio's transport, which cannot stop reading."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock

    def sendto(self, data: bytes, address: Address) -> None:
        with contextlib.suppress(OSError):  # QUIC sends lost packets again
            self.sock.sendto(data, address)

    def read(self, take: Callable[[bytes, Address], None]) -> None:
        def readable() -> None:
            with contextlib.suppress(BlockingIOError):
                for _ in range(AT_ONCE):
                    take(*self.sock.recvfrom(MOST_BYTES))

        asyncio.get_running_loop().add_reader(self.sock.fileno(), readable)

    def stop_reading(self) -> None:
        asyncio.get_running_loop().remove_reader(self.sock.fileno())

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self.sock if name == "socket" else default

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Leave the socket open: other connections use it."""


class Http(QuicConnectionProtocol):
    """Answers each request with the server's name and process id."""

    name = ""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._http = H3Connection(self._quic)

    def quic_event_received(self, event: QuicEvent) -> None:
        for said in self._http.handle_event(event):
            if isinstance(said, HeadersReceived):
                self._http.send_headers(said.stream_id, [(b":status", b"200")])
                self._http.send_data(said.stream_id, self.body(dict(said.headers)[b":path"].decode()), end_stream=True)
        self.transmit()

    def body(self, path: str) -> bytes:
        return f"{self.name} {os.getpid()}".encode()


class Server(QuicServer):
    """Serves its own connections, and passes packets of all others to the process before it, if there is one."""

    def __init__(self, configuration: QuicConfiguration, older: "Older | None") -> None:
        super().__init__(configuration=configuration, create_protocol=Http)
        self._older = older

    @property
    def ids(self) -> list[bytes]:
        """The connection ids of its connections, those that clients chose for their first packets among them."""
        return list(self._protocols)

    def datagram_received(self, data: bytes | str, addr: Address) -> None:
        assert isinstance(data, bytes)
        if self._older is not None and self._older.is_there and not self._is_own(data, self._older):
            self._older.send(data, addr)
        else:
            super().datagram_received(data, addr)

    def _is_own(self, data: bytes, older: "Older") -> bool:
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=self._configuration.connection_id_length)
        except ValueError:
            return True
        if header.destination_cid in self._protocols:
            return True
        is_first = header.packet_type == QuicPacketType.INITIAL and len(data) >= SMALLEST_MAX_DATAGRAM_SIZE
        return is_first and header.destination_cid not in older.ids


class Older:
    """The process that served before this one."""

    def __init__(self, channel: socket.socket) -> None:
        """Receive its socket and the ids of its connections."""
        message, descriptors, _, _ = socket.recv_fds(channel, MOST_BYTES, 1)
        self.ids = {bytes.fromhex(one) for one in json.loads(message)}
        self.sock = socket.socket(fileno=descriptors[0])
        channel.setblocking(False)
        self._channel, self.is_there = channel, True

    def send(self, data: bytes, address: Address) -> None:
        """Pass a packet with its source address on."""
        text = json.dumps(address).encode()
        try:
            self._channel.send(len(text).to_bytes(ADDRESS_BYTES) + text + data)
        except BlockingIOError:  # QUIC sends lost packets again
            return
        except OSError:
            self.is_there = False


async def serve(base: Path, name: str, address: str, port: int) -> None:
    """Serve until SIGTERM, or until a newer process has taken over and the last connection has ended."""
    Http.name = name
    older = _older(base)
    server = Server(_configuration(base, name), older)
    transport = Socket(older.sock if older is not None else _bound(address, port))
    server.connection_made(transport)  # type: ignore[arg-type]  # it uses sendto only
    transport.read(server.datagram_received)
    path = Path(f"{base}.sock")
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.setblocking(False)
        stop, loop = stop_event(), asyncio.get_running_loop()
        notify("READY=1")
        taken = asyncio.create_task(loop.sock_accept(listener))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({taken, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if taken.done():
            channel = taken.result()[0]
            transport.stop_reading()
            _hand_over(channel, transport.sock, server)
            while server.ids and not stop.is_set():
                await asyncio.sleep(DRAINED_POLL_S)


def _older(base: Path) -> Older | None:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        channel.connect(f"{base}.sock")
        return Older(channel)
    except (FileNotFoundError, ConnectionRefusedError):
        channel.close()
        return None


def _hand_over(channel: socket.socket, sock: socket.socket, server: Server) -> None:
    """Give the socket to the newer process; from now on packets come from it."""
    socket.send_fds(channel, [json.dumps([one.hex() for one in server.ids]).encode()], [sock.fileno()])
    channel.setblocking(False)

    def readable() -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(AT_ONCE):
                if not (message := channel.recv(MOST_BYTES)):
                    asyncio.get_running_loop().remove_reader(channel.fileno())
                    return
                end = ADDRESS_BYTES + int.from_bytes(message[:ADDRESS_BYTES])
                server.datagram_received(message[end:], tuple(json.loads(message[ADDRESS_BYTES:end])))

    asyncio.get_running_loop().add_reader(channel.fileno(), readable)


def _configuration(base: Path, name: str) -> QuicConfiguration:
    configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
    path = Path(f"{base}.pem")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(certificate(name))
    configuration.load_cert_chain(path, path)
    return configuration


def _bound(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, port))
    return sock


def main() -> None:
    base, name, address, port = sys.argv[1:]
    run(serve(Path(base), name, address, int(port)))


if __name__ == "__main__":
    main()
