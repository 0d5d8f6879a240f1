"""The server of the control protocol (lbmux.api.protocol) in a daemon.

A handler that is an async generator streams.  Whoever can open the socket controls the daemon, so its mode is 0600.
"""

import asyncio
import inspect
import json
import logging
import os
import socket
import stat
import typing
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any, Self

from lbmux.api.protocol import VERSION, adapter, to_json
from lbmux.api.renamed_requests import RENAMED
from lbmux.api.requests import Request
from lbmux.errors import ConfigError, ControlError, LbmuxError, SetupError

log = logging.getLogger(__name__)

MAX_REQUEST_BYTES = 64 * 1024

Kind = type[Request[Any]]
Handler = Callable[[Any], Any]
"""A coroutine function or an async generator function; it gets the request."""
Handlers = Mapping[Kind, Handler]


class ControlServer:
    """Listens at `path` from `start` to `stop` (or in an `async with`); `handlers` maps requests to their handlers."""

    def __init__(self, path: Path, handlers: Handlers, mode: int = 0o600) -> None:
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
        """Stop listening, end all clients, and remove the socket unless another daemon has replaced it."""
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
                async for answer in self.answers(request):
                    writer.write(answer)
                    await writer.drain()
        except ValueError:  # from readline: no end of line within the limit
            writer.write(_line({"ok": False, "error": f"a request may have at most {MAX_REQUEST_BYTES} bytes"}))
        except ConnectionError:
            pass  # the client disconnected

    async def answers(self, line: bytes) -> AsyncGenerator[bytes]:
        """Yield the lines of a request's answers."""
        try:
            handler, request = self._understand(line)
            answer = handler(request)
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
            log.exception("control socket: %r failed", line[:200])
            yield _line({"ok": False, "error": f"internal error: {error!r}"})

    def _understand(self, line: bytes) -> tuple[Handler, Request[Any]]:
        try:
            arguments = json.loads(line)
        except (ValueError, RecursionError):
            raise ControlError(self.path, "the request is not JSON") from None
        if not isinstance(arguments, dict) or not isinstance(arguments.get("command"), str):
            raise ControlError(self.path, 'the request is not an object with "command"')
        command, version = arguments.pop("command"), arguments.pop("version", VERSION)
        if version != VERSION:
            reason = (
                f"the request is in version {version!r} of the control protocol, this daemon speaks version {VERSION}"
            )
            raise ControlError(self.path, f"{reason}: use an lbmux of the daemon's version")
        kind, handler = self._look_up(command)
        try:
            inspect.signature(kind).bind(**arguments)
            return handler, kind(**{name: _validate(kind, name, value) for name, value in arguments.items()})
        except (TypeError, ValueError) as error:
            raise ControlError(self.path, f"{command}: {error}") from None

    def _look_up(self, command: str) -> tuple[Kind, Handler]:
        for kind, handler in self.handlers.items():
            if kind.command == command:
                return kind, handler
        if command in RENAMED:
            raise ControlError(self.path, f"`{command}` was renamed to `{RENAMED[command]}`")
        known = ", ".join(kind.command for kind in self.handlers)
        raise ControlError(self.path, f"unknown command {command!r}; use one of {known}")


def _validate(kind: Kind, name: str, value: Any) -> Any:
    """Validate an argument by the request's annotation; raise ValueError if its type is wrong."""
    from pydantic import ValidationError

    try:
        return adapter(typing.get_type_hints(kind)[name]).validate_python(value, strict=True)
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"].removeprefix("Input ")
        raise ValueError(f"argument {name!r} {reason}") from None


def _line(answer: dict[str, Any]) -> bytes:
    return to_json({"version": VERSION, **answer}).encode() + b"\n"


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
