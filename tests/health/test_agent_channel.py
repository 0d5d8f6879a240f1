"""The channel between agents and muxes, over real connections on loopback."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lbmux.errors import SetupError
from lbmux.health.agent_channel import ChannelError, HealthPublisher, HealthSubscriber, read_token

TOKEN, OTHER = b"t" * 32, b"o" * 32
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def between(
    agent: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]],
    mux: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]],
) -> list[Any]:
    """Return what each side returns or raises."""

    async def work() -> list[Any]:
        accepted: asyncio.Future[Streams] = asyncio.get_running_loop().create_future()
        server = await asyncio.start_server(lambda *streams: accepted.set_result(streams), "127.0.0.1", 0)
        ours = await asyncio.open_connection(*server.sockets[0].getsockname())
        theirs = await accepted

        async def then_close(side: Any, streams: Streams) -> Any:
            try:
                return await side(*streams)
            finally:
                streams[1].close()

        async with asyncio.timeout(10):
            results = await asyncio.gather(then_close(agent, theirs), then_close(mux, ours), return_exceptions=True)
        server.close()
        return results

    return asyncio.run(work())


async def tell_two(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    publisher = await HealthPublisher.opened(reader, writer, TOKEN)
    await publisher.send({"backends": ["a"]})
    await publisher.send({"backends": []})


async def hear_two(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: bytes = TOKEN) -> list[Any]:
    subscriber = await HealthSubscriber.opened(reader, writer, token)
    return [(await subscriber.receive())["backends"] for _ in range(2)]


def test_messages_come_in_order() -> None:
    assert between(tell_two, hear_two) == [None, [["a"], []]]


def test_a_mux_with_another_token_gets_no_health() -> None:
    agent, mux = between(tell_two, lambda *streams: hear_two(*streams, token=OTHER))
    assert isinstance(agent, ChannelError) and "another token" in str(agent)
    assert isinstance(mux, ChannelError) and "ended" in str(mux)


async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An agent that does not look at the mux's proof, and has another token."""
    writer.write(b"00" * 32 + b"\n")
    await reader.readline()
    writer.write(b"00" * 32 + b' {"n": 0, "backends": []}\n')


def test_an_agent_with_another_token_is_ignored() -> None:
    _, mux = between(pretend, hear_two)
    assert isinstance(mux, ChannelError) and "agent has another token" in str(mux)


@pytest.mark.parametrize(("change", "why"), [("again", "out of sequence"), ("altered", "another token")])
def test_a_message_changed_in_transit_is_refused(change: str, why: str) -> None:
    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        written: list[bytes] = []
        publisher = await HealthPublisher.opened(reader, writer, TOKEN)
        writer.write = written.append  # type: ignore[method-assign, assignment]
        await publisher.send({"backends": ["a"]})
        del writer.write
        writer.write(written[0])
        writer.write(written[0] if change == "again" else written[0].replace(b'"a"', b'"b"'))

    _, mux = between(agent, hear_two)
    assert isinstance(mux, ChannelError) and why in str(mux)


def test_a_peer_that_is_not_an_agent_is_reported() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * (1 << 20))
        await writer.drain()

    _, mux = between(endless, hear_two)
    assert isinstance(mux, ChannelError)


def test_a_token_s_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(TOKEN + b"\n")
    path.chmod(0o600)
    assert read_token(path) == TOKEN


@pytest.mark.parametrize(
    ("contents", "mode", "why"),
    [
        (TOKEN, 0o644, "its group or others have access"),
        (b"short\n", 0o600, "shorter"),
        (b"x" * 5000, 0o600, "longer than 4096 bytes"),
    ],
)
def test_an_invalid_token(tmp_path: Path, contents: bytes, mode: int, why: str) -> None:
    path = tmp_path / "token"
    path.write_bytes(contents)
    path.chmod(mode)
    with pytest.raises(SetupError, match=f"{path}: {why}"):
        read_token(path)
    with pytest.raises(SetupError, match="No such file"):
        read_token(tmp_path / "none")
