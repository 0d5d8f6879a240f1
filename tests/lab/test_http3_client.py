"""The HTTP/3 client of the lab against its server: answers, and what a user gets when the server is gone."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from lbmux.lab import http3_client, https_users
from lbmux.lab.connections import Connection
from lbmux.lab.http3_client import connected
from lbmux.lab.https_users import HTTP3_EVERY, Users
from tests.lab.test_quic_server import ADDRESS, port, running

__all__ = ["port"]


def test_one_connection_has_several_answers_until_the_server_dies(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(pid: int, kill: "contextlib.ExitStack") -> None:
        async with connected(ADDRESS, port) as client:
            for _ in range(2):
                assert await client.get("www.example.net", "/whoami") == f"edge {pid}".encode()
            kill.close()
            monkeypatch.setattr(http3_client, "TIMEOUT_S", 0.2)
            with pytest.raises(TimeoutError):
                await client.get("www.example.net", "/whoami")

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running(tmp_path / "quic", port))
        asyncio.run(ask(server.pid, stack))


def test_every_fifth_user_uses_http3(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolved(users: Users) -> str:
        return ADDRESS

    async def use() -> Connection:
        users, connection = Users("www.example.net", "", 0.0), Connection(HTTP3_EVERY - 1)
        task = asyncio.create_task(users.hold(connection))
        async with asyncio.timeout(20):
            while connection.lines < 3 and not connection.broken:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        return connection

    monkeypatch.setattr(https_users, "PORT", port)
    monkeypatch.setattr(Users, "_resolve", resolved)
    with running(tmp_path / "quic", port):
        connection = asyncio.run(use())
    assert (connection.broken, connection.backend.split()[0]) == ("", "edge") and connection.local_port
