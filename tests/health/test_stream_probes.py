import asyncio
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.health.servers import probe, stream_server

PAGE = b"HTTP/1.1 200 OK\r\nServer: test\r\n\r\n<p>all is well</p>"


def against(answer: bytes, context: ssl.SSLContext | None = None, **settings: Any) -> tuple[bool, str]:
    async def run() -> tuple[bool, str]:
        async with stream_server(answer, context) as port:
            return await probe(port, **settings)

    return asyncio.run(run())


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    directory: Path = tmp_path_factory.mktemp("tls")
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=backend.example"
    subprocess.run(["openssl", *words.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate, key)
    return made


def test_tcp_connects() -> None:
    assert against(b"", kind="tcp") == (True, "connected")


def test_tcp_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        healthy, why = asyncio.run(probe(taken.getsockname()[1], kind="tcp"))
    assert not healthy and "refused" in why.lower()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (True, "status 200")),
        ({"body": "all is well"}, (True, "status 200")),
        ({"body": "all is lost"}, (False, "the body does not contain 'all is lost'")),
        ({"body": "Server"}, (False, "the body does not contain 'Server'")),
        ({"status": 204}, (False, "status 200 instead of 204")),
    ],
)
def test_http(settings: dict[str, Any], expected: tuple[bool, str]) -> None:
    assert against(PAGE, kind="http", **settings) == expected


def test_http_to_a_server_of_another_protocol() -> None:
    assert against(b"SSH-2.0-test\r\n", kind="http") == (False, "the answer is not HTTP")


def test_http_of_a_server_that_hangs_up() -> None:
    assert against(b"", kind="http") == (False, "the answer is not HTTP")


def test_http_without_an_answer_in_time() -> None:
    async def run() -> tuple[bool, str]:
        server = await asyncio.start_server(lambda *_: asyncio.sleep(5), "127.0.0.1", 0)
        async with server:
            return await probe(server.sockets[0].getsockname()[1], kind="http", timeout_s=0.1)

    assert asyncio.run(run()) == (False, "no answer within 0.1 s")


def test_tls_shakes_hands(context: ssl.SSLContext) -> None:
    assert against(b"", context, kind="tls") == (True, "TLSv1.3 handshake")


def test_tls_of_a_server_without_it() -> None:
    assert not against(PAGE, kind="tls")[0]


def test_https_with_an_untrusted_certificate(context: ssl.SSLContext) -> None:
    assert against(PAGE, context, kind="https") == (True, "status 200")
    healthy, why = against(PAGE, context, kind="https", verify=True, host="backend.example")
    assert not healthy and "certificate" in why.lower()
