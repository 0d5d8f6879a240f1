"""Bad input to a manager: a clear error, nothing is changed, and nodes get their states meanwhile."""

import asyncio
import contextlib
import http.client
import socket
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lbmux.manager.api_client import ApiError, trusting
from lbmux.manager.api_models import ApplyAnswer, ApplyRequest
from lbmux.manager.authority import CERTIFICATE_DAYS, KeyPair, Subject, issue, new_key, new_request
from lbmux.manager.held_state import NodeState
from lbmux.manager.identity import Identity
from lbmux.manager.node_client import NodeClient
from tests.manager.running import Running, at_once, running_manager, wait_for
from tests.manager.test_pool import file

SLOW, MEBIBYTE = 1000, 1 << 20


class Follower:
    """A node beside the bad input; ``revision``: what it got last."""

    def __init__(self) -> None:
        self.revision = 0

    async def accept(self, state: NodeState) -> None:
        self.revision = state.revision


async def no_answers(line: bytes) -> AsyncGenerator[bytes]:
    yield b""


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[tuple[Running, Follower]]:
    """A manager with revision 1, and a node that has it."""
    node = Follower()
    with running_manager(tmp_path) as manager, manager.joined("mux1", "mux", no_answers, node.accept):
        apply(manager, 1)
        wait_for(lambda: node.revision == 1)
        yield manager, node


def apply(manager: Running, *backends: int) -> None:
    manager.client().post("/v1/config", ApplyRequest(file=file(*backends).decode()), ApplyAnswer)


def is_untouched(manager: Running, node: Follower) -> None:
    """Nothing was changed, and the node still follows."""
    assert manager.manager.state.revision == 1 and node.revision == 1
    apply(manager, 1, 2)
    wait_for(lambda: node.revision == 2)


def host_port(manager: Running) -> tuple[str, int]:
    host, _, port = manager.url.removeprefix("https://").rpartition(":")
    return host, int(port)


def test_an_unknown_field(pool: tuple[Running, Follower]) -> None:
    manager, node = pool
    for text, reason in (("servises: []\n", "services"), (file(1).decode() + "    helth: {}\n", "health")):
        with pytest.raises(ApiError, match="the configuration is invalid") as refused:
            manager.client().post("/v1/config", ApplyRequest(file=text, force=True), ApplyAnswer)
        assert reason in str(refused.value)
    is_untouched(manager, node)


def test_a_wrong_token(pool: tuple[Running, Follower]) -> None:
    manager, node = pool
    with pytest.raises(ApiError, match="unknown") as refused:
        request = ApplyRequest(file=file(7).decode(), force=True)
        manager.client(f"lbmux_{'0' * 12}_{'0' * 64}").post("/v1/config", request, ApplyAnswer)
    assert refused.value.status == 401
    is_untouched(manager, node)


def test_a_body_of_100_megabytes(pool: tuple[Running, Follower]) -> None:
    """The client sends it in chunks, so its length is not known before."""
    manager, node = pool
    host, port = host_port(manager)
    connection = http.client.HTTPSConnection(host, port, timeout=20, context=trusting(manager.ca.read_text()))
    with contextlib.closing(connection):
        connection.putrequest("POST", "/v1/config")
        connection.putheader("Authorization", f"Bearer {manager.token}")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        for _ in range(100):
            connection.send(b"%x\r\n%s\r\n" % (MEBIBYTE, b"x" * MEBIBYTE))
        connection.send(b"0\r\n\r\n")
        response = connection.getresponse()
        assert response.status == 413 and b"the request has over 25165824 bytes" in response.read()
    is_untouched(manager, node)


@pytest.mark.slow
def test_a_thousand_slow_connections(pool: tuple[Running, Follower]) -> None:
    manager, node = pool
    with contextlib.ExitStack() as stack:
        for _ in range(SLOW):
            stack.enter_context(socket.create_connection(host_port(manager), 10)).sendall(b"\x16")
        is_untouched(manager, node)


@pytest.mark.parametrize(
    ("pool_id", "age", "reason"),
    [
        ("", timedelta(days=CERTIFICATE_DAYS + 1), "certificate"),
        ("another", timedelta(), "node mux9 is of pool another"),
    ],
)
def test_a_node_without_a_valid_certificate(
    pool: tuple[Running, Follower], tmp_path: Path, caplog: pytest.LogCaptureFixture, pool_id: str, age: timedelta,
    reason: str,
) -> None:  # fmt: skip
    manager, node = pool
    ca, key, own = manager.manager.identity.authority, new_key(), Identity(tmp_path / "mux9")
    assert ca is not None
    subject = Subject(pool_id or manager.manager.pool_id, "node", "mux9")
    certificate = issue(ca, new_request(key, "mux9"), subject, datetime.now(UTC) - age)
    own.write(ca.certificate, KeyPair(certificate, key))

    async def follow() -> None:
        async with NodeClient([manager.url], own, "mux", tmp_path / "state").following(at_once):
            await asyncio.Event().wait()

    following = asyncio.run_coroutine_threadsafe(follow(), manager.loop)
    try:
        wait_for(lambda: reason in caplog.text)
        assert "mux9" not in manager.manager.nodes
        is_untouched(manager, node)
    finally:
        following.cancel()
