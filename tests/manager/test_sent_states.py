"""The order in which nodes get a state, over their connections: agents learn additions first, and removals last."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal

import pytest

from lbmux.config.loader import parse
from lbmux.manager import rollout_order
from lbmux.manager.held_state import NodeState
from lbmux.manager.manager_state import Manager
from lbmux.manager.node_client import NodeClient
from lbmux.manager.proposals import Proposal
from tests.manager.test_nodes import Lab, run, until
from tests.manager.test_pool import ALICE, file

QUIET_S = 0.2
"""Far longer than a message takes: nothing more comes."""


class Follower:
    """A node that is ``slow``: it takes a state only when it is let go on."""

    def __init__(
        self, lab: Lab, name: str, role: Literal["mux", "agent", "edge"], manager: Manager, *hosts: str
    ) -> None:
        self.name, self.may = name, asyncio.Event()
        self.may.set()
        self.states: list[NodeState] = []
        self.client = NodeClient([manager.url], lab.identity(name), role, lab.path / name / "pool", hosts)

    async def accept(self, state: NodeState) -> None:
        self.states.append(state)
        await self.may.wait()

    @property
    def backends(self) -> set[str]:
        """The backends of the last state."""
        config = parse(self.states[-1].text.encode(), Path("state"))
        return {backend.name for service in config.services for backend in service.backends}

    @property
    def revision(self) -> int:
        return self.states[-1].revision if self.states else 0


def following(
    tmp_path: Path, scenario: Callable[[Lab, Follower, Follower, Follower], Awaitable[None]], count: int
) -> None:
    """A mux at one manager, and two agents at the other one if there are two; b1 is on host1, b2 and b3 on host2."""

    async def running(lab: Lab) -> None:
        await lab.pool.apply(Proposal(file(1, 2)), ALICE)
        first, last = lab.managers[0], lab.managers[-1]
        mux = Follower(lab, "mux1", "mux", first)
        one = Follower(lab, "host1", "agent", last, "10.0.0.1", "2001:db8::1")
        two = Follower(lab, "host2", "agent", last, "10.0.0.2", "10.0.0.3")
        async with AsyncExitStack() as stack:
            for node in (mux, one, two):
                await stack.enter_async_context(node.client.following(node.accept))
            await until(lambda: mux.revision == one.revision == two.revision == 1)
            for manager in lab.managers:
                await until(lambda manager=manager: manager.progress.agents == manager.progress.muxes == (1, 0))
            await scenario(lab, mux, one, two)

    run(tmp_path, running, count)


BOTH = pytest.mark.parametrize("count", [1, 2])


@BOTH
def test_muxes_get_additions_after_agents(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_order, "PATIENCE_S", 60.0)

    async def scenario(lab: Lab, mux: Follower, one: Follower, two: Follower) -> None:
        assert (one.backends, two.backends, mux.backends) == ({"b1"}, {"b2"}, {"b1", "b2"})
        two.may.clear()
        await lab.pool.apply(Proposal(file(1, 2, 3)), ALICE)
        await until(lambda: two.revision == one.revision == 2 and two.backends == {"b2", "b3"})
        await asyncio.sleep(QUIET_S)
        assert mux.revision == 1
        two.may.set()
        await until(lambda: mux.backends == {"b1", "b2", "b3"})

    following(tmp_path, scenario, count)


@BOTH
def test_agents_get_removals_after_muxes(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_order, "PATIENCE_S", 60.0)

    async def scenario(lab: Lab, mux: Follower, one: Follower, two: Follower) -> None:
        mux.may.clear()
        await lab.pool.apply(Proposal(file(1), force=True), ALICE)
        await until(lambda: mux.backends == {"b1"} and two.revision == 2)
        await asyncio.sleep(QUIET_S)
        assert two.backends == {"b2"}
        mux.may.set()
        await until(lambda: two.backends == set())

    following(tmp_path, scenario, count)


@pytest.mark.parametrize("adds", [True, False])
def test_muxes_and_agents_wait_for_an_edge_that_balances(
    tmp_path: Path, adds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout_order, "PATIENCE_S", 60.0)

    async def scenario(lab: Lab, mux: Follower, one: Follower, two: Follower) -> None:
        edge = Follower(lab, "edge1", "edge", lab.managers[0], "10.0.0.9")
        async with edge.client.following(edge.accept):
            await until(lambda: edge.revision == 1)
            edge.may.clear()
            await lab.pool.apply(Proposal(file(1, 2, 3) if adds else file(1), force=True), ALICE)
            await until(lambda: edge.revision == one.revision == 2)
            await asyncio.sleep(QUIET_S)
            if adds:
                assert mux.revision == 1
            else:
                assert (mux.backends, two.backends) == ({"b1"}, {"b2"})
            edge.may.set()
            await until(lambda: mux.backends == {"b1", "b2", "b3"} if adds else two.backends == set())

    following(tmp_path, scenario, 1)


def test_a_node_that_hangs_does_not_stop_a_rollout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_order, "PATIENCE_S", 0.5)

    async def scenario(lab: Lab, mux: Follower, one: Follower, two: Follower) -> None:
        two.may.clear()
        await lab.pool.apply(Proposal(file(1, 2, 3)), ALICE)
        await until(lambda: mux.backends == {"b1", "b2", "b3"})

    following(tmp_path, scenario, 1)


def test_a_host_is_not_sent_the_files_of_others(tmp_path: Path) -> None:
    async def scenario(lab: Lab, mux: Follower, one: Follower, two: Follower) -> None:
        before = one.states[-1].text
        await lab.pool.apply(Proposal(file(1, 2, 3)), ALICE)
        await until(lambda: one.revision == 2)
        assert one.states[-1].text == before and "10.0.0.2" not in before

    following(tmp_path, scenario, 1)
