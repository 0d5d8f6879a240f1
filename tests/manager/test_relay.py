"""A manager relays requests of the control protocol to nodes: answers, streams, refusals, and readers that are slow."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lbmux.api.answers import FlowCount
from lbmux.api.control_client import ControlClient
from lbmux.api.control_server import ControlServer
from lbmux.api.requests import CountFlows, Reload, Request
from lbmux.errors import ControlError
from lbmux.manager import node_messages
from lbmux.manager.proposals import Proposal
from lbmux.manager.relay import WINDOW
from lbmux.manager.relayed_node import RelayedNode
from lbmux.manager.store.store import Write
from lbmux.manager.tokens import TOKENS, new_token
from tests.manager.test_nodes import Lab, Node, run, until
from tests.manager.test_pool import ALICE, file


@dataclass(frozen=True)
class Point:
    x: int
    padding: str = ""


@dataclass(frozen=True)
class RelayedPoints(Request[Point], command="points"):
    until: int
    size: int = 0


class Daemon:
    """A node's control server; ``made``: how many points it gave, ``ended``: how many streams were given up."""

    def __init__(self) -> None:
        self.made = self.ended = 0

    async def points(self, request: RelayedPoints) -> AsyncIterator[Point]:
        try:
            for number in range(request.until):
                self.made += 1
                yield Point(number, "x" * request.size)
        except (GeneratorExit, asyncio.CancelledError):
            self.ended += 1
            raise

    async def reload(self, request: Reload) -> Any:
        return {"changes": [], "overrides": []}

    async def count(self, request: CountFlows) -> FlowCount:
        return FlowCount(1, "mux", 5)


Scenario = Callable[[Lab, Node, Daemon], Awaitable[None]]


def relaying(tmp_path: Path, scenario: Scenario) -> None:
    """Run a scenario with one node that is connected."""

    async def running(lab: Lab) -> None:
        await lab.pool.apply(Proposal(file(1)), ALICE)
        node, daemon = lab.node("mux1"), Daemon()
        server = ControlServer(
            lab.path / "mux.sock", {RelayedPoints: daemon.points, Reload: daemon.reload, CountFlows: daemon.count}
        )
        node.client.answering = server.answers
        async with node.client.following(node.accept):
            await until(lambda: node.seen == [(1, 0)])
            await scenario(lab, node, daemon)

    run(tmp_path, running)


def client(lab: Lab, name: str = "mux1", token: str = "") -> ControlClient:
    return ControlClient(RelayedNode(lab.client(token), name), 10)


def test_answers_have_the_types_that_requests_name(tmp_path: Path) -> None:
    async def scenario(lab: Lab, node: Node, daemon: Daemon) -> None:
        points = await asyncio.to_thread(lambda: list(client(lab).stream(RelayedPoints(20 * WINDOW))))
        assert points == [Point(number) for number in range(20 * WINDOW)]
        assert (await asyncio.to_thread(client(lab).ask, Reload())).changes == []
        with pytest.raises(ControlError, match="mux1: the daemon gave no answer"):
            await asyncio.to_thread(client(lab).ask, RelayedPoints(0))

    relaying(tmp_path, scenario)


def test_a_reader_that_is_slow_or_leaves_holds_up_nothing_else(tmp_path: Path) -> None:
    async def scenario(lab: Lab, node: Node, daemon: Daemon) -> None:
        stream = client(lab).stream(RelayedPoints(10_000_000, 500_000))
        assert await asyncio.to_thread(next, stream) == Point(0, "x" * 500_000)
        made = -1
        while made != daemon.made:  # buffers are full
            made = daemon.made
            await asyncio.sleep(0.1)
        await lab.pool.apply(Proposal(file(1, 2)), ALICE)
        await until(lambda: node.seen == [(1, 0), (2, 0)])
        assert await asyncio.to_thread(client(lab).ask, RelayedPoints(1)) == Point(0)
        await asyncio.to_thread(stream.close)  # type: ignore[attr-defined]
        await until(lambda: daemon.ended)

    relaying(tmp_path, scenario)


def test_requests_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(lab: Lab, node: Node, daemon: Daemon) -> None:
        stored, viewer = new_token("eve", "viewer", 0.0, (), None)
        write = Write(f"{TOKENS}{stored.id}", stored.model_dump_json().encode())
        await lab.pool.record("token", ALICE, "token eve", write)
        assert await asyncio.to_thread(client(lab, token=viewer).ask, CountFlows()) == FlowCount(1, "mux", 5)
        for asked, request, reason in [
            (client(lab, token=viewer), Reload(), "operator"),
            (client(lab, token="wrong"), Reload(), "the token is not one of lbmux"),
            (client(lab, "mux9"), Reload(), "mux9: no such node is connected"),
        ]:
            with pytest.raises(ControlError, match=reason):
                await asyncio.to_thread(asked.ask, request)
        with pytest.raises(ControlError, match="not a request of the control protocol"):
            await asyncio.to_thread(list, RelayedNode(lab.client(), "mux1").lines(b"[7]", 10))

    relaying(tmp_path, scenario)


def test_a_node_that_goes_ends_its_answers(tmp_path: Path) -> None:
    async def scenario(lab: Lab, node: Node, daemon: Daemon) -> None:
        stream = client(lab).stream(RelayedPoints(10_000_000, 500_000))
        assert await asyncio.to_thread(next, stream) == Point(0, "x" * 500_000)
        await node.client.__dict__["_socket"].close()
        with pytest.raises(ControlError, match="its connection ended"):
            await asyncio.to_thread(list, stream)

    relaying(tmp_path, scenario)


def test_a_node_of_the_protocol_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_messages, "PROTOCOLS", (1,))

    async def scenario(lab: Lab, node: Node, daemon: Daemon) -> None:
        with pytest.raises(ControlError, match="does not accept requests from a manager"):
            await asyncio.to_thread(client(lab).ask, Reload())

    relaying(tmp_path, scenario)
