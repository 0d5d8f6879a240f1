"""The control channel of a running daemon: a Unix stream socket, one JSON object a line each way.

    {"command": "reload"}                          a request: the command and its arguments
    {"ok": true, "result": ...}                    the answer
    {"ok": false, "error": "...", "problems": []}  the answer if the request fails

A handler that is an async generator streams: each value comes with `"more": true`, followed by `{"ok": true, "end":
true}`. Everyone who can open the socket controls the daemon, so its mode is 0600.
"""

import asyncio
import inspect
import json
import logging
import os
import socket
import stat
import typing
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lbmux.api.renamed_requests import RENAMED
from lbmux.errors import ConfigError, ControlError, LbmuxError, SetupError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 64 * 1024

Handler = Callable[..., Any]
"""A coroutine function or an async generator function; it gets a request's arguments as keyword arguments."""


def default_path(program: str) -> Path:
    """Return the default socket of a program (`mux`, `agent`, `edge`)."""
    return Path("/run/lbmux") / f"{program}.sock"


def meant_path(given: Path | None) -> Path:
    """Return the given socket, or else the first existing one of mux, agent and edge."""
    paths = [default_path(program) for program in ("mux", "agent", "edge")]
    return given or next((path for path in paths if path.exists()), paths[0])


class ControlServer:
    """Listens at `path` from `start` to `stop` (or in an `async with`); `handlers` maps commands to handlers."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler], mode: int = 0o600) -> None:
        self.path = path
        self.handlers = handlers
        self.mode = mode
        self._inode = 0
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start to listen; raise SetupError if the socket cannot be created or another daemon listens there."""
        listener = _listen(self.path, self.mode)
        self._inode = self.path.stat().st_ino
        self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=MAX_REQUEST_BYTES)

    async def stop(self) -> None:
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        # Keep the socket of another daemon that has replaced ours.
        if self.path.exists() and self.path.stat().st_ino == self._inode:
            self.path.unlink()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # accepted during stop()
            writer.close()
            return
        client = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._clients.add(client)
        client.add_done_callback(self._clients.discard)
        # Close it here: a task that is cancelled before its first step never runs its own cleanup.
        client.add_done_callback(lambda _: writer.close())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readline():
                async for answer in self._answers(request):
                    writer.write(answer)
                    await writer.drain()
        except ValueError:  # from readline: no end of line within the limit
            writer.write(_line({"ok": False, "error": f"a request may have at most {MAX_REQUEST_BYTES} bytes"}))
        except ConnectionError:
            pass  # the client has gone

    async def _answers(self, request: bytes) -> AsyncIterator[bytes]:
        try:
            handler, arguments = self._understand(request)
            answer = handler(**arguments)
            if inspect.isasyncgen(answer):
                async for value in answer:
                    yield _line({"ok": True, "result": value, "more": True})
                yield _line({"ok": True, "end": True})
            else:
                yield _line({"ok": True, "result": await answer})
        except ConfigError as error:
            yield _line({"ok": False, "error": "the configuration is invalid", "problems": error.lines()})
        except ControlError as error:
            yield _line({"ok": False, "error": error.reason, "problems": error.problems})
        except LbmuxError as error:
            yield _line({"ok": False, "error": str(error)})
        except Exception as error:  # a bug must neither stop the daemon nor leave the client waiting
            log.exception("control socket: %r failed", request[:200])
            yield _line({"ok": False, "error": f"internal error: {error!r}"})

    def _understand(self, request: bytes) -> tuple[Handler, dict[str, Any]]:
        try:
            arguments = json.loads(request)
        except (ValueError, RecursionError):
            raise ControlError(self.path, "the request is not JSON") from None
        if not isinstance(arguments, dict) or not isinstance(arguments.get("command"), str):
            raise ControlError(self.path, 'the request is not an object with "command"')
        command = arguments.pop("command")
        handler = self.handlers.get(command)
        if handler is None and command in RENAMED:
            raise ControlError(self.path, f"`{command}` was renamed to `{RENAMED[command]}`")
        if handler is None:
            raise ControlError(self.path, f"unknown command {command!r}; use one of {', '.join(self.handlers)}")
        try:
            inspect.signature(handler).bind(**arguments)
            return handler, {name: _checked(handler, name, value) for name, value in arguments.items()}
        except (TypeError, ValueError) as error:
            raise ControlError(self.path, f"{command}: {error}") from None


def _checked(handler: Handler, name: str, value: Any) -> Any:
    """Validate an argument by the handler's annotation; raise ValueError if its type is wrong."""
    from pydantic import ValidationError

    adapter = _types(handler).get(name)
    try:
        return value if adapter is None else adapter.validate_python(value, strict=True)
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"].removeprefix("Input ")
        raise ValueError(f"argument {name!r} {reason}") from None


@lru_cache
def _types(handler: Handler) -> "dict[str, TypeAdapter[Any]]":
    from pydantic import TypeAdapter

    wanted = typing.get_type_hints(handler)
    return {name: TypeAdapter(kind) for name, kind in wanted.items() if name != "return"}


def _line(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def ask(path: Path, command: str, *, timeout_s: float = 30.0, **arguments: Any) -> Any:
    """Send a command and return its result; raise ControlError if it fails or no daemon answers."""
    for result in ask_stream(path, command, timeout_s=timeout_s, **arguments):
        return result
    return None


def ask_stream(path: Path, command: str, *, timeout_s: float | None = None, **args: Any) -> Iterator[Any]:
    """Send a command that streams and yield its results as they arrive; raise ControlError as `ask` does."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.sendall(json.dumps({"command": command, **args}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                for line in lines:
                    answer = json.loads(line)
                    if not answer["ok"]:
                        raise ControlError(path, answer["error"], tuple(answer.get("problems", ())))
                    if answer.get("end"):
                        return
                    yield answer["result"]
                    if not answer.get("more"):
                        return
    except (FileNotFoundError, ConnectionRefusedError):
        raise ControlError(path, "nothing listens there; is the daemon running?") from None
    except OSError as error:
        raise ControlError(path, error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ControlError(path, "the process that listens there is not an lbmux daemon") from error
    raise ControlError(path, "the daemon closed the connection")


def ask_list(path: Path, what: str, *, timeout_s: float = 5.0) -> list[dict[str, Any]]:
    """Return a list that is streamed in parts; raise ControlError as `ask` does."""
    return [line for part in ask_stream(path, what, timeout_s=timeout_s) for line in part[what]]


def _listen(path: Path, mode: int) -> socket.socket:
    """Return a listening socket; replace the socket file of a dead daemon."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _remove_stale(path)
        # umask sets the mode atomically: chmod after bind would leave a gap.
        umask = os.umask(0o777 & ~mode)
        try:
            listener.bind(str(path))
        finally:
            os.umask(umask)
    except OSError as error:
        listener.close()
        hint = "use --control with a path in a directory that this user can write"
        raise SetupError(f"control socket {path}", error.strerror or str(error), hint) from error
    except SetupError:
        listener.close()
        raise
    listener.listen()
    listener.setblocking(False)
    return listener


def _remove_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            hint = "remove it, or use another path with --control"
            raise SetupError(f"control socket {path}", "the file exists and is not a socket", hint)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise SetupError(f"control socket {path}", "another daemon listens there", "use another --control")
