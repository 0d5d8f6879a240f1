"""The control server, from a client's bytes to a handler and back."""

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from lbmux.api.control_server import MAX_REQUEST_BYTES, ControlServer
from lbmux.api.requests import Request
from lbmux.errors import ConfigError, ControlError, Problem, SetupError
from tests.api.asking import ask


@dataclass(frozen=True)
class Double(Request[int], command="double"):
    number: int


@dataclass(frozen=True)
class Reload(Request[None], command="reload"):
    pass


@dataclass(frozen=True)
class Break(Request[None], command="break"):
    pass


@dataclass(frozen=True)
class Unsayable(Request[set[int]], command="unsayable"):
    pass


@dataclass(frozen=True)
class Count(Request[int], command="count"):
    until: int


async def double(request: Double) -> int:
    return 2 * request.number


async def reload(request: Reload) -> None:
    raise ConfigError(Path("lbmux.yaml"), (Problem(3, "services[0].vip", "no"), Problem(4, "idle", "no")))


async def break_down(request: Break) -> None:
    raise RuntimeError("a bug")


async def unsayable(request: Unsayable) -> set[int]:
    return {1}


async def count(request: Count) -> AsyncIterator[int]:
    for number in range(request.until):
        yield number


VERSIONS = "the request is in version 2 of the control protocol, this daemon speaks version 1"
HANDLERS = {Double: double, Reload: reload, Break: break_down, Unsayable: unsayable, Count: count}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "mux.sock"


def with_server(path: Path, client: Callable[[], Any]) -> Any:
    """What a client gets that runs in a thread beside a server."""

    async def both() -> Any:
        async with ControlServer(path, HANDLERS):
            return await asyncio.to_thread(client)

    return asyncio.run(both())


def send(path: Path, request: bytes) -> list[dict[str, Any]]:
    """The answers to raw bytes, until the server hangs up."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return [json.loads(line) for line in connection.makefile("rb")]


def test_a_command_is_answered(path: Path) -> None:
    assert with_server(path, lambda: ask(path, "double", number=21)) == 42


def test_several_requests_on_one_connection(path: Path) -> None:
    request = b'{"command": "double", "number": 1}\n'
    answers = with_server(path, lambda: send(path, request * 3))
    assert answers == [{"version": 1, "ok": True, "result": 2}] * 3


def test_a_stream_has_a_line_for_each_value_and_one_for_its_end(path: Path) -> None:
    value, end = {"version": 1, "ok": True, "more": True}, {"version": 1, "ok": True, "end": True}
    answers = with_server(path, lambda: send(path, b'{"command": "count", "until": 2}\n'))
    assert answers == [value | {"result": 0}, value | {"result": 1}, end]
    assert with_server(path, lambda: send(path, b'{"command": "count", "until": 0}\n')) == [end]


def test_a_client_may_leave_a_stream(path: Path) -> None:
    def client() -> Any:
        ask(path, "count", until=10_000_000)
        return ask(path, "double", number=1)

    assert with_server(path, client) == 2


def test_a_refusal_says_every_problem(path: Path) -> None:
    with pytest.raises(ControlError) as caught:
        with_server(path, lambda: ask(path, "reload"))
    assert caught.value.problems == ("lbmux.yaml:3: services[0].vip: no", "lbmux.yaml:4: idle: no")


@pytest.mark.parametrize(("command", "reason"), [("break", "a bug"), ("unsayable", "not JSON serializable")])
def test_a_bug_in_a_handler_is_answered_and_the_server_continues(path: Path, command: str, reason: str) -> None:
    def client() -> Any:
        with pytest.raises(ControlError, match=f"internal error.*{reason}"):
            ask(path, command)
        return ask(path, "double", number=1)

    assert with_server(path, client) == 2


@pytest.mark.parametrize(
    ("request_line", "error"),
    [
        (b"junk\n", "the request is not JSON"),
        (b"\xff\xfe\n", "the request is not JSON"),
        (b"[" * 50_000 + b"\n", "the request is not JSON"),
        (b"[]\n", 'the request is not an object with "command"'),
        (b'{"command": 1}\n', 'the request is not an object with "command"'),
        (b'{"command": "nope"}\n', "unknown command 'nope'; use one of double, reload, break, unsayable, count"),
        (b'{"command": "double", "version": 2}\n', f"{VERSIONS}: use an lbmux of the daemon's version"),
        (b'{"command": "double"}\n', "double: missing a required argument: 'number'"),
        (b'{"command": "reload", "x": 1}\n', "reload: got an unexpected keyword argument 'x'"),
        (b" " * (MAX_REQUEST_BYTES + 1), f"a request may have at most {MAX_REQUEST_BYTES} bytes"),
    ],
)
def test_a_bad_request_is_refused(path: Path, request_line: bytes, error: str) -> None:
    (answer,) = with_server(path, lambda: send(path, request_line))
    assert (answer["ok"], answer["error"]) == (False, error)


def test_only_the_owner_may_open_it(path: Path) -> None:
    status = with_server(path, path.stat)
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600


def test_it_is_gone_when_the_server_has_stopped(path: Path) -> None:
    with_server(path, lambda: None)
    assert not path.exists()


def test_a_server_stops_though_a_client_is_connected(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)

        def client() -> None:
            connection.connect(str(path))
            connection.sendall(b'{"command": "double", "number": 1}\n')
            assert connection.recv(1000)

        with_server(path, client)
        assert connection.recv(1) == b""


def test_a_dead_daemons_socket_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert with_server(path, lambda: ask(path, "double", number=1)) == 2


def test_a_live_daemon_keeps_its_socket(path: Path) -> None:
    def second() -> None:
        with pytest.raises(SetupError, match=f"{path}: another daemon listens there"):
            asyncio.run(ControlServer(path, HANDLERS).start())

    with_server(path, second)


def test_another_file_in_its_place_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("precious")
    with pytest.raises(SetupError, match="not a socket"):
        asyncio.run(ControlServer(path, HANDLERS).start())
    assert path.read_text() == "precious"


def test_a_path_that_cannot_be_a_socket(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="too long"):
        asyncio.run(ControlServer(tmp_path / ("x" * 200), HANDLERS).start())


@dataclass(frozen=True)
class Take(Request[str], command="take"):
    name: str
    number: int | None = None
    order: Literal["drain", "remove"] | None = None
    given: dict[str, Any] | None = None
    is_long: bool = False


async def take(request: Take) -> str:
    return str(request)


ODD: list[Any] = [None, True, -1, 1.5, 10**400, "text", "\ud800", [], [[]], {}, {"a": []}]


def test_no_type_of_an_argument_is_an_internal_error(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ("name", "number", "order", "given", "is_long")
    requests = [{"command": "take", "name": "a"} | {name: value} for name in names for value in ODD]

    async def both() -> list[dict[str, Any]]:
        async with ControlServer(path, {Take: take}):
            lines = "\n".join(map(json.dumps, requests)) + "\n"
            return await asyncio.to_thread(send, path, lines.encode())

    answers = asyncio.run(both())
    assert len(answers) == len(requests) and not caplog.records
    refused = [answer["error"] for answer in answers if not answer["ok"]]
    assert all(error.startswith("take: argument '") for error in refused)
    assert "take: argument 'name' should be a valid string" in refused
    assert "take: argument 'order' should be 'drain' or 'remove'" in refused
    assert sum(answer["ok"] for answer in answers) == 2 + 3 + 1 + 3 + 1


@pytest.mark.parametrize(
    "request_line", [b'{"command": "double", "number": "1"}\n', b'{"command": "count", "until": []}\n']
)
def test_a_wrong_type_is_refused_in_one_line(path: Path, request_line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (answer,) = with_server(path, lambda: send(path, request_line))
    assert not answer["ok"] and answer["error"].endswith("should be a valid integer")
    assert not caplog.records
