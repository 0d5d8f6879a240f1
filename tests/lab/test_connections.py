"""The traffic of experiments, against servers on loopback."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lbmux.lab.connections import Connection, Silence, Traffic, obey
from lbmux.lab.scoreboard.experiment import judge
from lbmux.lab.test_server import Server

EVERY_S = 0.02


class Service:
    """An echo whose backlog is one connection: while it does not accept, the kernel leaves SYNs unanswered."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        self.listener.setblocking(False)
        self.port: int = self.listener.getsockname()[1]
        self.tasks: list[asyncio.Task[None]] = []

    async def accept(self) -> None:
        while True:
            connection, _ = await asyncio.get_running_loop().sock_accept(self.listener)
            self.tasks.append(asyncio.create_task(self.echo(connection)))

    async def echo(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        with contextlib.closing(writer):
            while line := await reader.readline():
                writer.write(b"h1 " + line)


@contextlib.asynccontextmanager
async def traffic_to(service: Service) -> AsyncIterator[Traffic]:
    """Yield traffic with one long connection and new ones all the time."""
    traffic = Traffic("127.0.0.1", service.port, 0.01)
    tasks = [asyncio.create_task(traffic.hold(Connection(0))), asyncio.create_task(traffic.open_short(EVERY_S))]
    try:
        yield traffic
    finally:
        for task in tasks + service.tasks:
            task.cancel()
        await asyncio.gather(*tasks, *service.tasks, return_exceptions=True)
        service.listener.close()


async def black_hole() -> tuple[dict[str, Any], dict[str, Any], float]:
    """Reports before and after a service took no new connections for half a second, and when that began."""
    service = Service()
    async with traffic_to(service) as traffic:
        accepting = asyncio.create_task(service.accept())
        await asyncio.sleep(0.3)
        before = json.loads(traffic.report())
        accepting.cancel()
        begun = asyncio.get_running_loop().time()
        await asyncio.sleep(0.5)
        return before, json.loads(traffic.report()), begun


def test_unanswered_new_connections_are_seen_before_they_time_out() -> None:
    before, after, begun = asyncio.run(black_hole())
    assert before["short"]["answered"] and before["short"]["waiting"] == 0 and before["trouble"] is None
    assert after["short"]["waiting"] > 10 and after["short"]["failed"] == {}
    outcome = judge("ananta", "nothing", set(), begun, before, after)
    assert (outcome.broken, outcome.refused) == (0, after["short"]["waiting"])
    assert 400 < outcome.normal_ms < 1000 and outcome.reasons == {"still waiting": outcome.refused}


async def late_answers() -> dict[str, Any]:
    """The report that was asked for while a service did not answer, which it did a little later."""
    answering = asyncio.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while line := await reader.readline():
                await answering.wait()
                writer.write(b"h1 " + line)

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    traffic = Traffic("127.0.0.1", server.sockets[0].getsockname()[1], 0.01)
    tasks = [asyncio.create_task(traffic.hold(Connection(0))), asyncio.create_task(traffic.open_short(EVERY_S))]
    await asyncio.sleep(0.2)
    tasks.append(asking := asyncio.create_task(obey(traffic, "answered 0")))
    await asyncio.sleep(0.2)
    answering.set()
    await asking
    report: dict[str, Any] = json.loads(traffic.report())
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    server.close()
    return report


def test_new_connections_that_are_only_late_are_not_refused() -> None:
    report = asyncio.run(late_answers())
    assert (report["short"]["waiting"], report["short"]["failed"]) == (0, {})
    assert report["short"]["answered"] and report["trouble"] is not None
    assert report["connections"][0]["lines"] == 0  # as when the report was asked for


async def answered_late(lines: int) -> tuple[Connection, list[float]]:
    """A connection with that many answers, each read long after it was sent, and when the server read their lines."""
    received: list[float] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while len(received) < lines and (line := await reader.readline()):
                received.append(time.monotonic())
                writer.write(b"h1 " + line)
                time.sleep(0.05)  # the client shares the loop, so it reads late

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        connection = Connection(0)
        traffic = Traffic(*server.sockets[0].getsockname(), 0.01)
        await traffic.hold(connection)
    return connection, received


def test_a_connection_knows_when_its_last_answered_line_was_sent() -> None:
    connection, received = asyncio.run(answered_late(lines=3))
    assert connection.lines == 3 and connection.broken
    assert received[1] < connection.asked_at <= received[2]


async def two_in_turn() -> list[int]:
    """The lines that each had an answer to halfway between their second ones, the other connection a pause behind."""
    service = Service()
    traffic = Traffic("127.0.0.1", service.port, 0.4)
    tasks = [asyncio.create_task(traffic.hold(Connection(number), 0.4 * number)) for number in range(2)]
    tasks.append(asyncio.create_task(service.accept()))
    await asyncio.sleep(0.6)
    connections = json.loads(traffic.report())["connections"]
    for task in tasks + service.tasks:
        task.cancel()
    await asyncio.gather(*tasks, *service.tasks, return_exceptions=True)
    service.listener.close()
    return [one["lines"] for one in connections]


def test_long_connections_take_turns() -> None:
    assert asyncio.run(two_in_turn()) == [2, 1]


async def silent(silence: Silence, until_lines: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reports of one connection to the lab's server: while it is silent, and when it has had that many answers."""
    echo = await asyncio.start_server(Server("h1").echo, "127.0.0.1", 0)
    traffic = Traffic("127.0.0.1", echo.sockets[0].getsockname()[1], 0.01)
    task = asyncio.create_task(traffic.hold(Connection(0)))
    async with asyncio.timeout(5):
        await asyncio.sleep(0)  # the transfer has begun
        await traffic.started()
        await traffic.fall_silent(silence)
        during = json.loads(traffic.report())["connections"][0]
        after = during
        while not after["broken"] and after["lines"] < during["lines"] + until_lines:
            await asyncio.sleep(0.01)
            after = json.loads(traffic.report())["connections"][0]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    echo.close()
    return during, after


def test_a_server_that_sends_after_a_silence_is_answered() -> None:
    during, after = asyncio.run(silent(Silence("idle-push", 0.3), 3))
    assert during["broken"] == after["broken"] == "" and after["lines"] >= during["lines"] + 3


def test_a_half_closed_connection_has_one_more_answer() -> None:
    during, after = asyncio.run(silent(Silence("half-closed", 0.3), 1))
    assert during["broken"] == after["broken"] == "" and after["lines"] == during["lines"] + 1


async def closed_early(kind: str) -> dict[str, Any]:
    """What is said of a connection whose server closes it during the silence."""

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(b"h1 " + line)
            if line.startswith(b"later"):
                break
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0)
    traffic = Traffic("127.0.0.1", server.sockets[0].getsockname()[1], 0.01)
    traffic.silence = Silence(kind, 0.05)
    async with asyncio.timeout(5):
        await traffic.hold(Connection(0))
    server.close()
    connection: dict[str, Any] = json.loads(traffic.report())["connections"][0]
    return connection


@pytest.mark.parametrize("kind", ["half-closed", "idle-push"])
def test_a_connection_that_ends_during_its_silence_is_broken(kind: str) -> None:
    assert asyncio.run(closed_early(kind))["broken"] == "closed by the server"


def test_a_command_on_stdin_is_a_silence_or_asks_for_a_report() -> None:
    assert Silence.parse("half-closed 2.5\n") == Silence("half-closed", 2.5)
    assert Silence.parse("idle-push 4\n") == Silence("idle-push", 4.0) and Silence.parse("report\n") is None


async def report_of_stuck(answers_s: float, most_s: float) -> dict[str, Any]:
    """The report, once a connection is no longer stuck whose second answer takes ``answers_s``."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for line in range(2):
            await reader.readline()
            await asyncio.sleep(line * answers_s)
            writer.write(b"h1 %d\n" % line)
        await reader.read()
        writer.close()

    echo = await asyncio.start_server(slow, "127.0.0.1", 0)
    traffic = Traffic("127.0.0.1", echo.sockets[0].getsockname()[1], 0.01)
    task = asyncio.create_task(traffic.hold(Connection(0)))
    async with asyncio.timeout(10):
        await asyncio.sleep(0)  # the transfer has begun
        await traffic.started()
        while not traffic.stuck():
            await asyncio.sleep(0.01)
        await obey(traffic, f"answered {most_s:g}")
        connection: dict[str, Any] = json.loads(traffic.report())["connections"][0]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    echo.close()
    return connection


def test_a_report_waits_for_answers_to_connections_that_are_stuck() -> None:
    connection = asyncio.run(report_of_stuck(answers_s=1.2, most_s=5))
    assert connection["lines"] == 2 and 1000 < connection["longest_stall_ms"] < 3000


def test_a_report_does_not_wait_for_ever() -> None:
    connection = asyncio.run(report_of_stuck(answers_s=60, most_s=0.1))
    assert connection["lines"] == 1 and connection["longest_stall_ms"] > 1000


def test_new_connections_keep_their_rate_where_the_client_is_late() -> None:
    async def run() -> int:
        traffic = Traffic("127.0.0.1", 1, 1.0)
        opened = list[float]()

        async def one() -> None:
            opened.append(time.monotonic())

        traffic.__dict__["_one_short"] = one
        opening = asyncio.create_task(traffic.open_short(0.01))
        await asyncio.sleep(0)
        begun = time.monotonic()
        while time.monotonic() - begun < 0.5:
            time.sleep(0.1)  # the process gets no turn
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        elapsed_s = time.monotonic() - begun
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        return round(elapsed_s / 0.01) - len(opened)

    assert abs(asyncio.run(run())) <= 6
