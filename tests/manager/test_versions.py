"""A version and the one before it work together, by messages as the first version of protocol 1 sent them.

Both ways: such a node at this version's manager, and this version's node at such a manager.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from lbmux.bgp.announced import Announced
from lbmux.manager.health_relay import BEAT_S
from lbmux.manager.node_messages import HealthLine, pack_file, unpack_file
from lbmux.manager.proposals import Proposal
from lbmux.manager.relay import RelayError
from lbmux.manager.route_overrides import RouteOrder
from lbmux.manager.survey import NodeSurvey
from tests.manager.test_nodes import Lab, run, until
from tests.manager.test_pool import ALICE, file

RECORDED = [json.loads(line) for line in Path(__file__).with_name("messages_1.jsonl").read_text().splitlines()]
KINDS = {one["kind"] for one in RECORDED}
Socket = web.WebSocketResponse


def recorded(kind: str, **changes: Any) -> dict[str, Any]:
    """Return the first recorded message of a kind, with other values."""
    message = next(one for one in RECORDED if one["kind"] == kind)
    assert changes.keys() <= message.keys()
    return message | changes


async def next_message(socket: Any) -> dict[str, Any]:
    """Return the next message other than ``alive``, which may come at any time."""
    while (message := await socket.receive_json())["kind"] == "alive":
        pass
    return dict(message)


def has_fields_of(message: dict[str, Any], old: dict[str, Any]) -> bool:
    """Return whether a message has all fields that the previous version reads, with values of the same types."""
    return all(name in message and type(message[name]) is type(value) for name, value in old.items())


def test_a_node_of_the_previous_version_is_served(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        manager, tls = lab.managers[0], lab.identity("mux1").client_context()
        await lab.pool.apply(Proposal(file(1, 2)), ALICE)
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{manager.url}/v1/node", ssl=tls) as socket:
            await socket.send_json(recorded("hello", epoch=0, revision=0, overrides=0, digest=""))
            state = await next_message(socket)
            assert has_fields_of(state, recorded("state")) and unpack_file(state["file"]) == file(1, 2)
            await socket.send_json(recorded("report", revision=1, overrides=0))
            await until(lambda: manager.nodes["mux1"].revision == 1)
            assert (manager.nodes["mux1"].in_force, manager.nodes["mux1"].refused) == (1, "")
            seen = set[str]()
            async with asyncio.timeout(10):
                while "alive" not in seen or manager.health.view.number < 2 * BEAT_S:
                    seen.add((await socket.receive_json())["kind"])
                    await socket.send_json(recorded("alive"))
            assert seen <= KINDS  # it is sent no view and no request, which it would not understand
            assert isinstance(manager.survey, NodeSurvey)
            assert (await manager.survey.plans(b"", manager.state.stored)).silent == ("mux1",)
            await lab.pool.apply(Proposal(file(2)), ALICE)
            while (state := await socket.receive_json())["kind"] != "state":
                pass
            await socket.send_json(recorded("report", revision=2, overrides=0, refused="table full"))
            await until(lambda: manager.nodes["mux1"].refused == "table full")

    run(tmp_path, scenario)


def test_a_node_of_the_previous_version_gets_no_routes(tmp_path: Path) -> None:
    """It would not understand the state; its operator upgrades it, or withdraws at its own socket."""

    async def scenario(lab: Lab) -> None:
        manager, tls = lab.managers[0], lab.identity("mux1").client_context()
        await lab.pool.apply(Proposal(file(1)), ALICE)
        await lab.pool.announce(RouteOrder(None, None, Announced(is_held=True)), ALICE)
        await until(lambda: manager.state.stored.routes)
        async with aiohttp.ClientSession() as session:
            for protocols, is_told in (([1, 2], False), ([1, 2, 3], True)):
                async with session.ws_connect(f"{manager.url}/v1/node", ssl=tls) as socket:
                    await socket.send_json(recorded("hello", protocols=protocols, digest=""))
                    state = await next_message(socket)
                    assert ("routes" in state["overrides"]) is is_told

    run(tmp_path, scenario)


@asynccontextmanager
async def previous_manager(lab: Lab, talk: Callable[[Socket], Awaitable[None]]) -> AsyncIterator[str]:
    """A manager of the previous version, which says what ``talk`` does; yield its URL."""

    async def node(request: web.Request) -> Socket:
        socket = Socket()
        await socket.prepare(request)
        await talk(socket)
        return socket

    application = web.Application()
    application.router.add_get("/v1/node", node)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=lab.managers[0].identity.server_context())
        await site.start()
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def test_a_manager_of_the_previous_version_is_followed(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        received, pool = list[dict[str, Any]](), lab.managers[0].pool_id
        first = recorded("state", pool=pool, epoch=3, revision=2, file=pack_file(file(1)))

        async def talk(socket: Socket) -> None:
            received.append(await next_message(socket))
            await socket.send_json(first)
            received.append(await next_message(socket))
            drained = [one for one in RECORDED if one["kind"] == "state"][1]
            await socket.send_json(drained | {"pool": pool, "digest": first["digest"]})
            received.append(await next_message(socket))
            await socket.send_json(recorded("state", pool=pool, epoch=1, file=pack_file(file(1))))
            received.append(await next_message(socket))
            await socket.send_json(recorded("alive"))
            while received[-1]["kind"] != "alive":
                received.append(await socket.receive_json())
            await socket.send_json(recorded("refused"))

        async with previous_manager(lab, talk) as url:
            node = lab.node("mux1")
            node.client.__dict__["_urls"] = [url]
            async with node.client.following(node.accept):
                await until(lambda: received and received[-1]["kind"] == "alive")
        hello, report, again, stale, *_ = received
        assert 1 in hello["protocols"] and has_fields_of(hello, recorded("hello"))
        assert has_fields_of(report, recorded("report", revision=2)) and (report["revision"], report["refused"]) == (
            2,
            "",
        )
        assert (again["kind"], again["overrides"]) == ("report", 2) and node.states[-1].text.encode() == file(1)
        assert has_fields_of(stale, recorded("stale")) and stale["epoch"] == 3

    run(tmp_path, scenario)


def test_a_view_of_the_previous_version_leaves_watermarks_to_muxes(tmp_path: Path) -> None:
    """The first version of protocol 2 sent views without the services below their watermark."""
    line: HealthLine = ("web", "b1", True, "connected")
    view = {"kind": "view", "epoch": 3, "number": 1, "lines": [line]}

    async def scenario(lab: Lab) -> None:
        taken = list[Any]()

        async def talk(socket: Socket) -> None:
            await socket.receive_json()
            await socket.send_json(view)
            await until(lambda: taken)

        async with previous_manager(lab, talk) as url:
            node = lab.node("mux1")
            node.client.__dict__["_urls"] = [url]
            node.client.on_view = lambda view: taken.append((view.lines, view.kept, view.weights))
            async with node.client.following(node.accept):
                await until(lambda: taken)
        assert taken[0] == ((line,), None, None)

    run(tmp_path, scenario)


def test_requests_to_a_node_of_the_previous_version_say_why_not(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        manager, tls = lab.managers[0], lab.identity("mux1").client_context()
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{manager.url}/v1/node", ssl=tls) as socket:
            await socket.send_json(recorded("hello", epoch=0, revision=0, overrides=0, digest=""))
            await until(lambda: "mux1" in manager.nodes)
            assert isinstance(manager.survey, NodeSurvey)
            with pytest.raises(RelayError, match="there does not accept requests from a manager"):
                manager.survey.__dict__["_relay"]("mux1")

    run(tmp_path, scenario)
