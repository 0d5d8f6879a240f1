"""Test traffic: long connections to an echo service that are always in use, and a stream of short ones.

    python -m lbmux.lab.connections 192.0.2.1 7 --connections 50

Each long connection sends a numbered line, waits for the answer (``NAME NUMBER``), pauses, and repeats.  The
connections are staggered, since a delay in this client would look like a stall of the network.

A report is a line of JSON on stdout: one when all long connections are answered, one for every line on stdin, and a
last one at the end of stdin or of ``--seconds``.  A line ``idle-push SECONDS`` or ``half-closed SECONDS`` first makes
every long connection silent until the server speaks; its report comes when all are silent.

With ``--reopen`` a long connection that broke is in one report, and another with its number takes its place.

Times and short connections in a report count since the previous report.  ``trouble``: the monotonic time at which
something was last late (more than ``--late-ms``), failed or broke, or null.  ``waiting``: short connections that are
late and still wait for their answer.  After a line ``answered SECONDS`` no long connection is stuck, or that time is
over, and then the short ones that are open have their answers or have failed: none of them counts as waiting.
"""

import argparse
import asyncio
import contextlib
import json
import math
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from lbmux.daemons import process

START_TIMEOUT_S = 10.0
SHORT_TIMEOUT_S = 3.0
"""A new connection without an answer after this time has failed."""
REOPEN_S = 0.2
LATE_MS = 50.0
STUCK_MS = 1000.0
"""A connection that has waited longer than this at the end counts as stuck."""


class Silence(NamedTuple):
    """Silence until the server speaks, ``seconds`` after it was asked to.

    ``half-closed``: the client half-closes, and closes after the answer.  ``idle-push``: the connection continues.
    """

    kind: str
    seconds: float

    @classmethod
    def parse(cls, line: str) -> "Silence | None":
        kind, _, seconds = line.strip().partition(" ")
        return cls(kind, float(seconds)) if kind in ("half-closed", "idle-push") else None


@dataclass
class Connection:
    """A long connection.  ``broken``: why it ended.  ``longest_stall_ms``: the longest wait for an answer.

    ``asked_at``: the monotonic time at which the last answered line was sent.
    ``was_silent``: it fell silent at some time; the server may have spoken since.
    """

    number: int
    local_port: int = 0
    backend: str = ""
    lines: int = 0
    broken: str = ""
    longest_stall_ms: float = 0.0
    asked_at: float = 0.0
    waiting_since: float | None = None
    was_silent: bool = False

    def wait(self) -> None:
        self.waiting_since = time.monotonic()

    def waited(self) -> float:
        """End the wait, and return its length in ms."""
        stall_ms = self.waits_ms
        self.longest_stall_ms = max(self.longest_stall_ms, round(stall_ms, 1))
        self.waiting_since = None
        return stall_ms

    @property
    def waits_ms(self) -> float:
        """The current wait in ms."""
        return 0.0 if self.waiting_since is None else 1000 * (time.monotonic() - self.waiting_since)

    def report(self) -> dict[str, Any]:
        fields = asdict(self) | {"longest_stall_ms": max(self.longest_stall_ms, round(self.waits_ms, 1))}
        del fields["waiting_since"], fields["was_silent"]
        self.longest_stall_ms = 0.0
        return fields


@dataclass
class Short:
    """Results of the short connections."""

    answered: Counter[str] = field(default_factory=Counter)  # by backend
    failed: Counter[str] = field(default_factory=Counter)  # by reason
    longest_ms: float = 0.0

    def report(self, waiting: int) -> dict[str, Any]:
        ended = {"answered": dict(self.answered), "failed": dict(self.failed), "longest_ms": self.longest_ms}
        return ended | {"waiting": waiting}


class Traffic:
    """All connections to one service."""

    def __init__(
        self, address: str, port: int, pause_s: float, late_ms: float = LATE_MS, reopens: bool = False
    ) -> None:
        self.reopens = reopens
        self._to, self.pause_s, self._late_ms = (address, port), pause_s, late_ms
        self.silence: Silence | None = None
        """The silence that every long connection begins once, instead of its next line."""
        self._trouble: float | None = None
        self._connections: list[Connection] = []
        self._short = Short()
        self._opened: list[float] = []
        """The opening times of short connections that have no answer yet."""
        self._counted_until = math.inf
        """The time until which a short connection was opened that counts as waiting."""
        self._long: list[dict[str, Any]] = []
        """The long connections' part of the next report, if that is to be from before it."""

    async def hold(self, connection: Connection, turn_s: float = 0.0) -> None:
        """Use one connection until it breaks.  ``turn_s``: its offset from others that are opened now."""
        self._connections.append(connection)
        connection.wait()
        try:
            await self.use(connection, turn_s)
        except OSError as error:
            connection.broken = error.strerror or str(error)
            connection.waited()
            self._trouble = time.monotonic()

    async def use(self, connection: Connection, turn_s: float) -> None:
        """Exchange lines until the connection ends; raise OSError if it breaks."""
        reader, writer = await asyncio.open_connection(*self._to)
        with contextlib.closing(writer):
            connection.local_port = writer.get_extra_info("sockname")[1]
            await self._exchange(connection, reader, writer)
            await asyncio.sleep(turn_s)
            while not writer.is_closing():
                await asyncio.sleep(self.pause_s)
                if self.silence and not connection.was_silent:
                    await self._fall_silent(self.silence, connection, reader, writer)
                else:
                    await self._exchange(connection, reader, writer)

    async def keep(self, number: int, turn_s: float) -> None:
        """Hold a long connection, and with ``reopens`` another one whenever it breaks."""
        await self.hold(Connection(number), turn_s)
        while self.reopens:
            await asyncio.sleep(REOPEN_S)
            await self.hold(Connection(number))

    async def _exchange(
        self, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if connection.lines:
            connection.wait()
        writer.write(b"%d\n" % connection.lines)
        await self._answer(str(connection.lines), connection, reader)

    async def _fall_silent(
        self, silence: Silence, connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Ask the server to repeat its answer later, and wait for it silently.  After that time it counts as late."""
        text = f"later {silence.seconds:g}"
        connection.wait()
        writer.write(text.encode() + b"\n")
        await self._answer(text, connection, reader)
        if silence.kind == "half-closed":
            writer.write_eof()
        connection.was_silent = True
        await asyncio.sleep(silence.seconds)
        connection.wait()
        await self._answer(text, connection, reader)
        if silence.kind == "half-closed":
            if rest := await reader.read():
                raise ConnectionError(f"{rest[:20]!r} after the last answer")
            writer.close()

    async def _answer(self, wanted: str, connection: Connection, reader: asyncio.StreamReader) -> None:
        name, _, text = (await reader.readline()).decode().strip().partition(" ")
        asked_at = connection.waiting_since or 0.0
        self.took(connection.waited())
        if not name:
            raise ConnectionError("closed by the server")
        if text != wanted:
            raise ConnectionError(f"answer {text!r} to line {wanted!r}")
        if name != (connection.backend or name):
            raise ConnectionError(f"{name} answers for {connection.backend}")
        connection.backend = name
        connection.asked_at = asked_at
        connection.lines += 1

    async def open_short(self, every_s: float) -> None:
        """Open short connections, each for one line, at a rate that also holds where this process is late."""
        due = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._one_short())
                due += every_s
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _one_short(self) -> None:
        start = time.monotonic()
        self._opened.append(start)
        try:
            async with asyncio.timeout(SHORT_TIMEOUT_S):
                name = await self.ask_once()
            self._short.answered[name] += 1
        except OSError as error:
            self._short.failed[error.strerror or str(error) or "no answer"] += 1
            self._trouble = time.monotonic()
        self._opened.remove(start)
        took_ms = 1000 * (time.monotonic() - start)
        self.took(took_ms)
        self._short.longest_ms = max(self._short.longest_ms, round(took_ms, 1))

    async def ask_once(self) -> str:
        """Open a connection for one line, and return the server's name; raise OSError without an answer."""
        reader, writer = await asyncio.open_connection(*self._to)
        with contextlib.closing(writer):
            writer.write(b"0\n")
            if not (name := (await reader.readline()).decode().partition(" ")[0]):
                raise ConnectionError("closed by the server")
            return name

    def took(self, milliseconds: float) -> None:
        if milliseconds > self._late_ms:
            self._trouble = time.monotonic()

    def _short_waits_ms(self) -> list[float]:
        now = time.monotonic()
        return [1000 * (now - opened) for opened in self._opened if opened <= self._counted_until]

    async def started(self) -> None:
        """Wait until every long connection was answered or is broken."""
        while not all(connection.lines or connection.broken for connection in self._connections):
            await asyncio.sleep(0.01)

    async def answered(self) -> None:
        """Wait until no long connection is stuck."""
        while self.stuck():
            await asyncio.sleep(0.01)

    async def short_answered(self) -> None:
        """Wait until each short connection that is open now has an answer or has failed.

        The next report has the long ones as they are now, and counts no later short ones as waiting.
        """
        self._counted_until, self._long = time.monotonic(), self._long_report()
        while self._short_waits_ms():
            await asyncio.sleep(0.01)

    def stuck(self) -> bool:
        return any(connection.waits_ms > STUCK_MS and not connection.broken for connection in self._connections)

    async def fall_silent(self, silence: Silence) -> None:
        """Wait until every long connection is silent or broken."""
        self.silence = silence
        while not all(connection.was_silent or connection.broken for connection in self._connections):
            await asyncio.sleep(0.01)

    def report(self) -> str:
        """Return the report as JSON, and begin the next one's counts."""
        connections, waits_ms = self._long or self._long_report(), self._short_waits_ms()
        for wait_ms in waits_ms:
            self.took(wait_ms)
        waiting = sum(wait_ms > self._late_ms for wait_ms in waits_ms)
        fields = {"connections": connections, "short": self._short.report(waiting), "trouble": self._trouble}
        self._short, self._trouble, self._counted_until, self._long = Short(), None, math.inf, []
        if self.reopens:
            self._connections = [one for one in self._connections if not one.broken]
        return json.dumps(fields)

    def _long_report(self) -> list[dict[str, Any]]:
        for connection in self._connections:
            self.took(connection.waits_ms)
        return [connection.report() for connection in self._connections]


async def run(traffic: Traffic, options: argparse.Namespace) -> None:
    """Run the traffic until the end of stdin or of ``--seconds``; report for every line on stdin."""
    pause_s = options.pause_ms / 1000
    tasks = [
        asyncio.create_task(traffic.keep(number, pause_s * number / options.connections))
        for number in range(options.connections)
    ]
    await asyncio.sleep(0)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(traffic.started(), START_TIMEOUT_S)
    print(traffic.report(), flush=True)
    if options.short_per_s:
        tasks.append(asyncio.create_task(traffic.open_short(1 / options.short_per_s)))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(options.seconds):
            commands = asyncio.StreamReader()
            loop = asyncio.get_running_loop()
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
            while line := await commands.readline():
                await obey(traffic, line.decode())
                print(traffic.report(), flush=True)
    print(traffic.report(), flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def obey(traffic: Traffic, line: str) -> None:
    """Do what a command asks for before the report that it gets: ``answered SECONDS``, or a silence."""
    command, _, seconds = line.strip().partition(" ")
    with contextlib.suppress(TimeoutError):
        if silence := Silence.parse(line):
            await asyncio.wait_for(traffic.fall_silent(silence), START_TIMEOUT_S)
        elif command == "answered":
            await asyncio.wait_for(traffic.answered(), float(seconds))
    if command == "answered":
        await traffic.short_answered()


def parser_of(text: str | None) -> argparse.ArgumentParser:
    """Return a parser of the options that all kinds of traffic have."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=50, help="long ones")
    parser.add_argument("--pause-ms", type=float, default=20.0, help="between an answer and the next line")
    parser.add_argument("--short-per-s", type=float, default=0.0, help="short ones opened a second")
    parser.add_argument("--late-ms", type=float, default=LATE_MS, help="an answer after more than that is late")
    parser.add_argument("--reopen", action="store_true", help="replace long connections that break")
    parser.add_argument("--seconds", type=float, help="end after this many seconds [default: at the end of stdin]")
    return parser


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    pause_s, late_ms = options.pause_ms / 1000, options.late_ms
    process.run(run(Traffic(options.address, options.port, pause_s, late_ms, options.reopen), options))


if __name__ == "__main__":
    main()
