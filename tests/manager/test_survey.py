"""Live nodes are asked about a change: its plan by muxes, connections by agents, through whichever manager has them."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal

import pytest

from lbmux.api.answers import ConnectionCounts, Planned
from lbmux.api.control_server import ControlServer, Handlers
from lbmux.api.requests import CountConnections, PlanRevision
from lbmux.backends.override_commands import set_admin_state
from lbmux.errors import TableError
from lbmux.manager import survey
from lbmux.manager.guard_rails import GuardRailError
from lbmux.manager.manager_state import Manager
from lbmux.manager.node_client import NodeClient
from lbmux.manager.node_messages import unpack_file
from lbmux.manager.proposals import Applied, Proposal
from tests.manager.running import at_once
from tests.manager.test_nodes import Lab, run, until
from tests.manager.test_pool import ALICE, file

Asked = list[PlanRevision | CountConnections]


def counts(number: int, asked: Asked) -> Handlers:
    async def count(request: CountConnections) -> ConnectionCounts:
        asked.append(request)
        return ConnectionCounts(1, "agent", [("web", "b1", number), ("web", "b2", 100)])

    return {CountConnections: count}


def plans(share: float, asked: Asked) -> Handlers:
    async def plan(request: PlanRevision) -> Planned:
        asked.append(request)
        if share > 1:
            raise TableError("slots", 2, 1)
        return Planned(1, "mux", {"web": share})

    return {PlanRevision: plan}


def surveying(tmp_path: Path, scenario: Callable[[Lab, Asked], Awaitable[None]], *, is_silent: bool = False) -> None:
    """Muxes at both managers, one of which refuses plans, and two agents, of which one may be silent."""

    async def running(lab: Lab) -> None:
        await lab.pool.apply(Proposal(file(1, 2)), ALICE)
        asked: Asked = []
        first, second = lab.managers
        async with AsyncExitStack() as stack:

            async def join(name: str, role: Literal["mux", "agent"], manager: Manager, handlers: Handlers) -> None:
                client = NodeClient([manager.url], lab.identity(name), role, lab.path / name / "pool")
                client.answering = ControlServer(lab.path / f"{name}.sock", handlers).answers
                await stack.enter_async_context(client.following(at_once))

            await join("mux1", "mux", first, plans(0.25, asked))
            await join("mux2", "mux", second, plans(0.5, asked))
            await join("mux3", "mux", second, plans(2, asked))
            await join("host1", "agent", first, counts(150, asked))
            await join("host2", "agent", second, {} if is_silent else counts(50, asked))
            primary = next(one for one in lab.managers if one.is_primary)
            await until(lambda: sum(one.connected for one in primary.nodes.values()) == 5)
            await scenario(lab, asked)

    run(tmp_path, running, 2)


async def dry_run(lab: Lab, text: bytes) -> Applied:
    return await lab.pool.apply(Proposal(text, dry_run=True), ALICE)


def test_a_dry_run_asks_all_nodes(tmp_path: Path) -> None:
    async def scenario(lab: Lab, asked: Asked) -> None:
        new = file(1, 2).replace(b"dip: 10.0.0.1", b"port: 8080, dip: 10.0.0.1")
        impact = (await dry_run(lab, new)).impact
        assert impact is not None and impact.slots == {"web": 0.5} and list(impact.refused) == ["mux3"]
        assert (impact.connections, impact.moving, impact.moved, impact.silent) == (400, 200, 0.5, ())
        assert {unpack_file(one.file) for one in asked if isinstance(one, PlanRevision)} == {new}
        assert lab.pool.state.revision == 1

    surveying(tmp_path, scenario)


def test_edges_plan_and_count_connections(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.pool.apply(Proposal(file(1, 2)), ALICE)
        asked: Asked = []
        client = NodeClient([lab.managers[0].url], lab.identity("edge1"), "edge", lab.path / "edge1" / "pool")
        handlers = plans(0.5, asked) | counts(100, asked)
        client.answering = ControlServer(lab.path / "edge1.sock", handlers).answers
        async with client.following(at_once):
            await until(lambda: "edge1" in lab.managers[0].nodes)
            impact = (await dry_run(lab, file(1, 2).replace(b"dip: 10.0.0.1", b"port: 8080, dip: 10.0.0.1"))).impact
        assert impact is not None and impact.slots == {"web": 0.5}
        assert (impact.connections, impact.moving, impact.silent) == (200, 100, ())

    run(tmp_path, scenario)


def test_what_moves_many_connections_needs_force(tmp_path: Path) -> None:
    async def scenario(lab: Lab, asked: Asked) -> None:
        with pytest.raises(GuardRailError, match=r"50.0% of the live connections would move; the limit is 10.0%"):
            await lab.pool.override(set_admin_state("disable", "b1", None, 1.0), ALICE)
        assert asked == [CountConnections()] * 2
        lab.pool.__dict__["_most_moved"] = 0.5
        await lab.pool.override(set_admin_state("disable", "b1", None, 1.0), ALICE)
        asked.clear()
        await lab.pool.override(set_admin_state(None, "b1", None, 1.0), ALICE)
        await lab.pool.apply(Proposal(file(1, 2, 3)), ALICE)
        assert asked == []  # these changes move nothing

    surveying(tmp_path, scenario)


def test_nodes_that_do_not_answer_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "ANSWER_S", 1.0)

    async def scenario(lab: Lab, asked: Asked) -> None:
        impact = (await dry_run(lab, file(1, 2, 3))).impact
        assert impact is not None and impact.connections == 250 and impact.silent == ("host2",)

    surveying(tmp_path, scenario, is_silent=True)


def test_another_manager_may_only_read(tmp_path: Path) -> None:
    async def scenario(lab: Lab, asked: Asked) -> None:
        import aiohttp

        for name, status in (("m1", 200), ("mux1", 403)):
            tls = (lab.managers[0].identity if name == "m1" else lab.identity("mux9")).client_context()
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
                url = f"{lab.managers[0].url}/v1/nodes/host1/ask"
                async with session.post(url, data=b'{"command": "connections"}') as response:
                    assert response.status == status
                async with session.post(url, data=b'{"command": "reload"}') as response:
                    assert response.status == 403

    surveying(tmp_path, scenario)


def test_no_node_is_there(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.pool.apply(Proposal(file(1, 2)), ALICE)
        impact = (await asyncio.wait_for(dry_run(lab, file(1, 2, 3)), 5)).impact
        assert impact is not None and (impact.connections, impact.moved) == (0, None)
        await lab.pool.override(set_admin_state("disable", "b1", None, 1.0), ALICE)

    run(tmp_path, scenario)
