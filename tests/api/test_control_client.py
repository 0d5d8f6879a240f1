"""The control client, against the control server and against processes that speak another protocol."""

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lbmux.api.answers import Backends
from lbmux.api.control_client import ControlClient
from lbmux.api.requests import GetBackends, GetConfig, GetHealth, Request
from lbmux.errors import ConfigError, ControlError, Problem
from tests.api.answering import answering, said
from tests.api.lines import backend_line


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 0


@dataclass(frozen=True)
class Points(Request[Point], command="points"):
    until: int


async def points(request: Points) -> AsyncIterator[Point]:
    for number in range(request.until):
        yield Point(number)


async def invalid(request: GetConfig) -> None:
    raise ConfigError(Path("lbmux.yaml"), (Problem(3, "services[0].vip", "no"), Problem(4, "idle", "no")))


async def backends(request: GetBackends) -> AsyncIterator[Backends]:
    for name in ("h1", "h2"):
        yield Backends(1, "mux", [backend_line(backend=name)])


@pytest.fixture
def client(tmp_path: Path) -> Iterator[ControlClient]:
    path = tmp_path / "mux.sock"
    with answering(path, {Points: points, GetConfig: invalid, GetBackends: backends}):
        yield ControlClient(path, 10)


def test_a_stream_arrives_as_the_type_that_its_request_names(client: ControlClient) -> None:
    assert list(client.stream(Points(3))) == [Point(0), Point(1), Point(2)]
    assert list(client.stream(Points(0))) == []


def test_one_answer_is_the_first_of_a_stream(client: ControlClient) -> None:
    assert client.ask(Points(10_000_000)) == Point(0)
    with pytest.raises(ControlError, match="gave no answer"):
        client.ask(Points(0))


def test_the_parts_of_a_list_are_joined(client: ControlClient) -> None:
    whole = client.whole(GetBackends())
    assert (whole.program, [line.backend for line in whole.backends]) == ("mux", ["h1", "h2"])


def test_a_refusal_has_every_problem(client: ControlClient) -> None:
    with pytest.raises(ControlError) as caught:
        client.ask(GetConfig())
    assert caught.value.problems == ("lbmux.yaml:3: services[0].vip: no", "lbmux.yaml:4: idle: no")


def test_a_request_that_the_daemon_does_not_have_is_refused(client: ControlClient) -> None:
    with pytest.raises(ControlError, match="unknown command 'health'; use one of points, config, backends"):
        client.ask(GetHealth())


def test_unknown_fields_of_a_newer_daemon_are_ignored(tmp_path: Path) -> None:
    with answering(tmp_path / "mux.sock", {Points: said({"x": 1, "y": 2, "z": 3})}):
        assert ControlClient(tmp_path / "mux.sock").ask(Points(1)) == Point(1, 2)


def test_an_answer_without_a_field_is_an_error_in_one_line(tmp_path: Path) -> None:
    with answering(tmp_path / "mux.sock", {Points: said({"y": 2})}), pytest.raises(ControlError) as caught:
        ControlClient(tmp_path / "mux.sock").ask(Points(1))
    assert caught.value.reason == "this version does not understand the answer to `points`: x: Field required"


@contextmanager
def speaking(path: Path, line: bytes) -> Iterator[ControlClient]:
    """A process that answers each client with this line, and hangs up."""

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            if line:
                connection.recv(1000)
            connection.sendall(line)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        yield ControlClient(path, 10)
        thread.join(10)


OTHER_VERSION = (
    "the daemon speaks version 2 of the control protocol, this lbmux version 1: use an lbmux of the daemon's version"
)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"version": 2, "ok": true, "result": {"x": 1}}\n', OTHER_VERSION),
        (b'{"version": 2, "ok": false, "error": "?"}\n', OTHER_VERSION),
        (b"HTTP/1.1 400 Bad Request\n", "the process that listens there is not an lbmux daemon"),
        (b"[]\n", "the process that listens there is not an lbmux daemon"),
        (b"7\n", "the process that listens there is not an lbmux daemon"),
        (b"{}\n", "the process that listens there is not an lbmux daemon"),
        (b"[" * 100_000 + b"\n", "the process that listens there is not an lbmux daemon"),
    ],
)  # fmt: skip
def test_a_process_that_speaks_otherwise(tmp_path: Path, line: bytes, reason: str) -> None:
    with speaking(tmp_path / "mux.sock", line) as client, pytest.raises(ControlError) as caught:
        client.ask(Points(1))
    assert caught.value.reason == reason


def test_an_answer_without_a_version_is_of_the_first(tmp_path: Path) -> None:
    with speaking(tmp_path / "mux.sock", b'{"ok": true, "result": {"x": 1}}\n') as client:
        assert client.ask(Points(1)) == Point(1)


def test_a_socket_without_a_listener(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="is `lbmux mux` running"):
        ControlClient(tmp_path / "mux.sock").ask(Points(1))


def test_a_connection_closed_without_an_answer(tmp_path: Path) -> None:
    with speaking(tmp_path / "mux.sock", b"") as client, pytest.raises(ControlError):
        client.ask(Points(1))
