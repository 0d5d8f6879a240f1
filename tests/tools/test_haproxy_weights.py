"""Weights at a proxy's runtime API, which a socket of the test plays."""

import asyncio
from pathlib import Path

import pytest

from lbmux.errors import SetupError
from lbmux.tools.haproxy_weights import ServerState, commands, set_weights, states


def test_the_largest_share_gets_the_highest_weight() -> None:
    assert commands("up", {"a": 0.25, "b": 0.75}).startswith("set server up/a weight 85; set server up/b weight 256; ")
    assert commands("up", {"a": 0.0, "b": 0.0}).startswith("set server up/a weight 0; set server up/b weight 0; ")


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
    assert asyncio.run(with_api(tmp_path, b"\n", tcp)) == [b"set server up/a weight 256; show stat up 4 -1\n"]


def test_states_are_those_of_health_checks(tmp_path: Path) -> None:
    head = "# pxname,svname,status,weight,check_status,check_duration,"
    rows = ["up,a,UP,256,L4OK,130,", "up,b,DOWN,0,L4TOUT,2000,", "up,c,no check,1,,,", "up,d,UP 1/3,1,L4OK,7,"]
    statistics = "\n".join([head, *rows, "", ""])
    expected = {
        "a": ServerState(True, 130), "b": ServerState(False, 2000), "c": ServerState(True, None),
        "d": ServerState(True, 7),
    }  # fmt: skip
    assert states(statistics) == expected and states("") == {}
    asyncio.run(with_api(tmp_path, b"\n\n" + statistics.encode()))


def test_a_refusal_before_statistics_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="No such server"):
        asyncio.run(with_api(tmp_path, b"No such server.\n\n# pxname,svname,status,\n"))


def test_what_haproxy_refuses_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="No such server"):
        asyncio.run(with_api(tmp_path, b"No such server.\n\n"))


def test_a_proxy_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="its weights stay"):
        asyncio.run(set_weights("gone.sock", "up", {"a": 1.0}, tmp_path))
