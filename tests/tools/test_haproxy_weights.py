"""Weights at a proxy's runtime API, which a socket of the test plays."""

import asyncio
from pathlib import Path

import pytest

from lbmux.errors import SetupError
from lbmux.tools.haproxy_weights import commands, set_weights


def test_the_largest_share_gets_the_highest_weight() -> None:
    assert commands("up", {"a": 0.25, "b": 0.75}) == "set server up/a weight 85; set server up/b weight 256"
    assert commands("up", {"a": 0.0, "b": 0.0}) == "set server up/a weight 0; set server up/b weight 0"


async def with_api(directory: Path, answer: bytes, tcp: bool = False) -> list[bytes]:
    """Set weights at an API that gives this answer; return the lines that it got."""
    got = list[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.readline())
        writer.write(answer)
        writer.close()

    if tcp:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        api = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    else:
        server, api = await asyncio.start_unix_server(serve, directory / "api.sock"), "api.sock"
    async with server:
        await set_weights(api, "up", {"a": 1.0}, directory)
    return got


@pytest.mark.parametrize("tcp", [False, True])
def test_it_sends_one_line(tmp_path: Path, tcp: bool) -> None:
    assert asyncio.run(with_api(tmp_path, b"\n", tcp)) == [b"set server up/a weight 256\n"]


def test_what_haproxy_refuses_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="No such server"):
        asyncio.run(with_api(tmp_path, b"No such server.\n\n"))


def test_a_proxy_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="its weights stay"):
        asyncio.run(set_weights("gone.sock", "up", {"a": 1.0}, tmp_path))
