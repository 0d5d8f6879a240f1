"""A revision on its canary, over real connections of simulated nodes: it goes on, or it is rolled back."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from lbmux.api.answers import Counters, Health, VerdictLine
from lbmux.api.control_server import ControlServer
from lbmux.api.requests import GetCounters, GetHealth
from lbmux.backends.override_commands import add
from lbmux.errors import LbmuxError
from lbmux.manager import rollout_order, soak
from lbmux.manager.api_client import ApiError
from lbmux.manager.api_models import ApplyAnswer, ApplyRequest, StatusAnswer
from lbmux.manager.held_state import NodeState
from lbmux.manager.pool import Pool
from lbmux.manager.proposals import CanaryError, Proposal
from lbmux.manager.records import list_events
from tests.api.lines import health_line
from tests.manager.test_nodes import Lab, run, until
from tests.manager.test_pool import ALICE, file
from tests.manager.test_sent_states import Follower

SOAK_S = 0.4


class Mux(Follower):
    """A mux that answers with counters that a test sets."""

    def __init__(self, lab: Lab, name: str) -> None:
        super().__init__(lab, name, "mux", lab.managers[-1])
        self.verdicts, self.states_of_backends = Counter[str](), ["up", "up"]
        self.client.answering = ControlServer(
            lab.path / f"{name}.sock", {GetCounters: self.counters, GetHealth: self.health}
        ).answers
        self.refuses = ""

    async def accept(self, state: NodeState) -> None:
        if self.refuses and state.revision == 2:
            raise LbmuxError(self.refuses)
        await super().accept(state)

    async def counters(self, request: GetCounters) -> Counters:
        kinds = {"forwarded": "send", "denied": "drop"}
        lines = [VerdictLine(name, kinds[name], count, 0) for name, count in self.verdicts.items()]
        return Counters(1, "mux", lines, {}, None, None, {})

    async def health(self, request: GetHealth) -> AsyncIterator[Health]:
        for state in self.states_of_backends:  # one answer for each state
            yield Health(1, "mux", [health_line(state=state)])


Scenario = Callable[[Lab, Pool, list[Mux], Follower], Awaitable[None]]


def soaking(tmp_path: Path, scenario: Scenario, count: int = 1) -> None:
    """Three muxes and an agent that have revision 1."""

    async def running(lab: Lab) -> None:
        await lab.pool.apply(Proposal(file(1, 2)), ALICE)
        muxes = [Mux(lab, f"mux{number}") for number in (1, 2, 3)]
        agent = Follower(lab, "host2", "agent", lab.managers[0], "10.0.0.2", "10.0.0.3")
        async with AsyncExitStack() as stack:
            for node in (*muxes, agent):
                await stack.enter_async_context(node.client.following(node.accept))
            await until(lambda: all(one.revision == 1 for one in (*muxes, agent)))
            await until(lambda: all(len(manager.nodes) == 4 for manager in lab.managers if manager.is_primary))
            for manager in lab.managers:  # one that has not heard of the agent yet would not wait for it
                await until(lambda manager=manager: manager.progress.agents == manager.progress.muxes == (1, 0))
            await scenario(lab, lab.pool, muxes, agent)

    run(tmp_path, running, count)


def to_canary(text: bytes, soak_s: float = SOAK_S) -> Proposal:
    return Proposal(text, canary="mux1", soak_s=soak_s, force=True)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_a_sound_revision_reaches_all_nodes(tmp_path: Path, count: int) -> None:
    async def scenario(lab: Lab, pool: Pool, muxes: list[Mux], agent: Follower) -> None:
        await pool.apply(to_canary(file(1, 3)), ALICE)
        await until(lambda: muxes[0].revision == 2)
        assert [one.revision for one in muxes] == [2, 1, 1] and agent.backends == {"b2", "b3"}
        for mux in muxes:
            mux.verdicts.update(forwarded=1000, denied=50)  # all alike
        await until(lambda: all(one.revision == 2 for one in muxes))
        await until(lambda: agent.backends == {"b3"})
        assert pool.state.canary is None
        (event,) = await list_events(lab.managers[0].store, 1)
        assert (
            event.kind == "canary"
            and event.text == "canary mux1 of revision 2 passed its soak: the revision goes to all nodes"
        )

    soaking(tmp_path, scenario, count)


def test_drops_stop_a_rollout(tmp_path: Path) -> None:
    async def scenario(lab: Lab, pool: Pool, muxes: list[Mux], agent: Follower) -> None:
        await pool.apply(to_canary(file(1, 3), 60.0), ALICE)
        await until(lambda: muxes[0].revision == 2)
        await until(lambda: lab.managers[0].nodes["mux1"].in_force == 2)
        await asyncio.sleep(2 * soak.CHECK_S)  # the first samples are there
        for number, mux in enumerate(muxes):
            mux.verdicts.update(forwarded=1000, denied=0 if number else 200)
        await until(lambda: muxes[0].revision == 3)
        assert muxes[0].backends == {"b1", "b2"}
        await until(lambda: all(one.revision == 3 for one in muxes))
        assert not any(state.revision == 2 for one in muxes[1:] for state in one.states)
        await until(lambda: agent.backends == {"b2"})
        (event,) = await list_events(lab.managers[0].store, 1)
        reason = "200 drops in 1200 packets (16.67%), the other muxes 0 in 2000"
        assert event.kind == "rollback" and event.text.startswith(f"canary mux1 of revision 2: {reason}: ")

    soaking(tmp_path, scenario)


def test_backends_that_only_the_canary_finds_down_stop_it(tmp_path: Path) -> None:
    async def scenario(lab: Lab, pool: Pool, muxes: list[Mux], agent: Follower) -> None:
        await pool.apply(to_canary(file(1, 2, 3), 4 * soak.CHECK_S), ALICE)
        await until(lambda: muxes[0].revision == 2)
        await until(lambda: lab.managers[0].nodes["mux1"].in_force == 2)
        await asyncio.sleep(2 * soak.CHECK_S)
        muxes[0].states_of_backends = ["up", "up", "down"]
        await until(lambda: all(one.revision == 3 for one in muxes))

    soaking(tmp_path, scenario)


def test_a_canary_that_refuses_or_goes_ends_the_rollout(tmp_path: Path) -> None:
    async def scenario(lab: Lab, pool: Pool, muxes: list[Mux], agent: Follower) -> None:
        muxes[0].refuses = "table full"
        await pool.apply(to_canary(file(1, 3), 60.0), ALICE)
        await until(lambda: all(one.revision == 3 for one in muxes[1:]))
        (event,) = await list_events(lab.managers[0].store, 1)
        assert "mux1 refuses it: table full" in event.text

    soaking(tmp_path, scenario)


def test_nothing_else_is_applied_meanwhile(tmp_path: Path) -> None:
    async def scenario(lab: Lab, pool: Pool, muxes: list[Mux], agent: Follower) -> None:
        await pool.apply(to_canary(file(1, 3), 60.0), ALICE)
        with pytest.raises(CanaryError, match="revision 2 is on its canary mux1"):
            await pool.apply(Proposal(file(1, 2, 3)), ALICE)
        await until(lambda: muxes[0].revision == 2)
        await pool.rollback(None, Proposal(b"", force=True), ALICE)
        await until(lambda: all(one.revision == 3 for one in muxes))
        assert pool.state.canary is None and muxes[0].backends == {"b1", "b2"}

    soaking(tmp_path, scenario)


def test_the_others_keep_the_overrides_that_a_revision_makes_obsolete(tmp_path: Path) -> None:
    async def scenario(lab: Lab, pool: Pool, muxes: list[Mux], agent: Follower) -> None:
        await pool.override(add("web", {"name": "b3", "dip": "10.0.0.3"}, 1.0), ALICE)
        await until(lambda: len(muxes[1].states[-1].stored.overrides) == 1)
        await pool.apply(to_canary(file(1, 2, 3), 60.0), ALICE)
        await until(lambda: muxes[0].revision == 2)
        assert not muxes[0].states[-1].stored.overrides
        assert [one.backend for one in muxes[1].states[-1].stored.overrides] == ["b3"] and muxes[1].revision == 1
        await pool.rollback(None, Proposal(b"", force=True), ALICE)
        await until(lambda: all(one.revision == 3 for one in muxes))
        assert [one.backend for one in muxes[0].states[-1].stored.overrides] == ["b3"]

    soaking(tmp_path, scenario)


@pytest.mark.slow
def test_another_primary_soaks_again(tmp_path: Path) -> None:
    async def scenario(lab: Lab, pool: Pool, muxes: list[Mux], agent: Follower) -> None:
        await pool.apply(to_canary(file(1, 3), 2.0), ALICE)
        first = next(one for one in lab.managers if one.is_primary)
        first.__dict__["_holding"].cancel()
        await until(lambda: any(one.is_primary for one in lab.managers))
        await until(lambda: all(one.revision == 2 for one in muxes))

    soaking(tmp_path, scenario, 2)


def test_only_a_connected_mux_beside_others_is_a_canary(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        def apply(mux: str) -> ApplyAnswer:
            request = ApplyRequest(file=file(1, 2).decode(), canary=mux)
            return lab.client().post("/v1/config", request, ApplyAnswer)

        await lab.pool.apply(Proposal(file(1)), ALICE)
        mux = Follower(lab, "mux1", "mux", lab.managers[0])
        async with mux.client.following(mux.accept):
            await until(lambda: mux.revision == 1)
            with pytest.raises(ApiError, match="mux mux7 is not connected"):
                await asyncio.to_thread(apply, "mux7")
            with pytest.raises(ApiError, match="no other mux is connected"):
                await asyncio.to_thread(apply, "mux1")
        status = await asyncio.to_thread(lab.client().get, "/v1/status", StatusAnswer)
        assert status.canary is None and status.revision == 1

    run(tmp_path, scenario)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "CHECK_S", 0.05)
    monkeypatch.setattr(rollout_order, "PATIENCE_S", 60.0)
