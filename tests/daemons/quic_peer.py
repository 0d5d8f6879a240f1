"""HTTP/3 by aioquic: a server whose connection ids name it, and a client that changes its port in mid-connection.

    python -m tests.daemons.quic_peer serve ADDRESS PORT NAME ROTATION SERVER_ID_HEX
    python -m tests.daemons.quic_peer ask ADDRESS PORT MOVES
    python -m tests.daemons.quic_peer keep ADDRESS PORT

The server answers ``/whoami`` with its name, ``/bytes/N`` with N bytes.  The client asks who it is, then moves and asks
again, on the one connection, MOVES times; then it downloads, moving in the midst of it.  Without moves it asks once and
is done.  It prints what it saw as JSON.  With ``keep`` it asks at once and for each line on its input, and moves first
if the line is ``move``; it prints each answer, and closes the connection at the end of its input.
"""

import asyncio
import datetime
import hashlib
import json
import os
import ssl
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aioquic.quic.connection
from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lbmux.lab.quic_server import Http
from lbmux.lab.test_server import PATTERN, body_digest

ID_BYTES = 10
"""Length of a connection id; no other random value in aioquic is that long."""
DOWNLOAD_BYTES = 2_000_000


def certificate(directory: Path) -> tuple[Path, Path]:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab")])
    start = datetime.datetime(2020, 1, 1)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(start).not_valid_after(start + datetime.timedelta(days=36500))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    (directory / "cert").write_bytes(made.public_bytes(pem))
    plain = serialization.NoEncryption()
    (directory / "key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    return directory / "cert", directory / "key"


class Server(Http):
    """Answers with its name, or with as many bytes as the path asks for."""

    def body(self, path: str) -> bytes:
        if not path.startswith("/bytes/"):
            return self.name.encode()
        length = int(path.rpartition("/")[2])
        return (PATTERN * (length // len(PATTERN) + 1))[:length]


class Client(QuicConnectionProtocol):
    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._http = H3Connection(self._quic)
        self._bodies: dict[int, bytearray] = {}
        self._done: dict[int, asyncio.Future[bytes]] = {}

    def ask(self, path: str) -> "asyncio.Future[bytes]":
        stream = self._quic.get_next_available_stream_id()
        headers = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"lab"), (b":path", path.encode())]
        self._http.send_headers(stream, headers, end_stream=True)
        self._bodies[stream], self._done[stream] = bytearray(), asyncio.get_running_loop().create_future()
        self.transmit()
        return self._done[stream]

    def quic_event_received(self, event: QuicEvent) -> None:
        for said in self._http.handle_event(event):
            if isinstance(said, DataReceived):
                self._bodies[said.stream_id] += said.data
                if said.stream_ended:
                    self._done[said.stream_id].set_result(bytes(self._bodies[said.stream_id]))

    async def move(self) -> int:
        """Go on from another port; which."""
        before = self._transport
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: self, local_addr=(before.get_extra_info("sockname")[0], 0)
        )
        before.abort()
        self._quic.change_connection_id()
        self.transmit()
        return int(transport.get_extra_info("sockname")[1])


async def run_server(address: str, port: int, name: str, rotation: int, server_id: bytes) -> None:
    def urandom(size: int) -> bytes:
        value = os.urandom(size)
        if size == ID_BYTES:
            value = bytes([rotation << 5 | value[0] & 31]) + server_id + value[1 + len(server_id) :]
        return value

    aioquic.quic.connection.os = SimpleNamespace(urandom=urandom)  # type: ignore[attr-defined]
    Server.name = name
    configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN, connection_id_length=ID_BYTES)
    with tempfile.TemporaryDirectory() as directory:
        configuration.load_cert_chain(*certificate(Path(directory)))
    await serve(address, port, configuration=configuration, create_protocol=Server)
    print("ready", flush=True)
    await asyncio.Event().wait()


async def run_client(address: str, port: int, moves: int) -> None:
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE)
    async with connect(address, port, configuration=configuration, create_protocol=Client) as client:
        names, ports = [(await client.ask("/whoami")).decode()], []
        for _ in range(moves):
            ports.append(await client.move())
            names.append((await asyncio.wait_for(client.ask("/whoami"), 5)).decode())
        whole = await download(client) if moves else None
        print(json.dumps({"names": names, "ports": ports, "whole": whole}), flush=True)


async def keep(address: str, port: int) -> None:
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE)
    async with connect(address, port, configuration=configuration, create_protocol=Client) as client:
        line = "ask"
        while line:
            if line.strip() == "move":
                await client.move()
            print((await asyncio.wait_for(client.ask("/whoami"), 5)).decode(), flush=True)
            line = await asyncio.to_thread(sys.stdin.readline)


async def download(client: Client) -> bool:
    """Whether all of it came, though the client moved in the midst of it."""
    coming = client.ask(f"/bytes/{DOWNLOAD_BYTES}")
    await asyncio.sleep(0.05)
    await client.move()
    body = await asyncio.wait_for(coming, 20)
    return hashlib.sha256(body).hexdigest() == body_digest(DOWNLOAD_BYTES)


if __name__ == "__main__":
    what, address, port, *more = sys.argv[1:]
    if what == "serve":
        asyncio.run(run_server(address, int(port), more[0], int(more[1]), bytes.fromhex(more[2])))
    elif what == "keep":
        asyncio.run(keep(address, int(port)))
    else:
        asyncio.run(run_client(address, int(port), int(more[0])))
