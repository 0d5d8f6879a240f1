"""UDP traffic of experiments, against servers on loopback."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lbmux.lab.connections import Connection
from lbmux.lab.datagrams import Datagrams
from lbmux.lab.test_server import Echo

ENOUGH_S = 10.0


class Deaf(Echo):
    """An echo that does not hear the first datagrams."""

    deaf_to = 2

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.deaf_to -= 1
        if self.deaf_to < 0:
            super().datagram_received(data, addr)


class Turning(Echo):
    """An echo that answers in other names later, as if another server had the flow."""

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._name = "h1" if data == b"0\n" else "h2"
        super().datagram_received(data, addr)


@contextlib.asynccontextmanager
async def flow_to(echo: Echo) -> AsyncIterator[tuple[Datagrams, Connection]]:
    """Yield traffic with one long flow."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: echo, ("127.0.0.1", 0))
    traffic, flow = Datagrams(*transport.get_extra_info("sockname"), 0.01), Connection(0)
    task = asyncio.create_task(traffic.hold(flow))
    try:
        yield traffic, flow
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        transport.close()


async def after_lines(echo: Echo, lines: int) -> dict[str, Any]:
    """The report on a flow once it had so many answers or is broken."""
    async with flow_to(echo) as (traffic, flow), asyncio.timeout(ENOUGH_S):
        while flow.lines < lines and not flow.broken:
            await asyncio.sleep(0.01)
        report: dict[str, Any] = json.loads(traffic.report())["connections"][0]
        return report


def test_a_flow_keeps_its_server() -> None:
    report = asyncio.run(after_lines(Echo("h1"), 3))
    assert (report["backend"], report["broken"]) == ("h1", "") and report["lines"] >= 3


def test_a_lost_datagram_is_sent_again_and_is_a_stall() -> None:
    report = asyncio.run(after_lines(Deaf("h1"), 1))
    assert report["broken"] == "" and report["longest_stall_ms"] >= 300


def test_a_flow_that_another_server_answers_is_broken() -> None:
    assert asyncio.run(after_lines(Turning("h1"), 3))["broken"] == "h2 answers for h1"


def test_a_flow_to_a_closed_port_is_broken() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    flow = Connection(0)
    asyncio.run(asyncio.wait_for(Datagrams("127.0.0.1", port, 0.01).hold(flow), ENOUGH_S))
    assert flow.broken == "Connection refused"


def test_a_short_flow_is_one_line() -> None:
    async def name() -> str:
        async with flow_to(Echo("h7")) as (traffic, _):
            return await asyncio.wait_for(traffic.ask_once(), ENOUGH_S)

    assert asyncio.run(name()) == "h7"


@pytest.mark.parametrize("late", ["0", "later 3"])
def test_an_answer_to_another_line_does_not_count(late: str) -> None:
    class Late(Echo):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            super().datagram_received(late.encode() + b"\n", addr)
            super().datagram_received(data, addr)

    report = asyncio.run(after_lines(Late("h1"), 3))
    assert report["broken"] == "" and report["lines"] >= 3
