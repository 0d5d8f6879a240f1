"""Several managers: the primary knows all nodes and agents, and every mux gets the view of health from its manager."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp
import pytest
import yaml

from lbmux.api.control_client import ControlClient
from lbmux.api.control_server import ControlServer
from lbmux.api.requests import CountFlows
from lbmux.backends import auto_weights
from lbmux.errors import ControlError
from lbmux.manager import node_client, pool_health
from lbmux.manager.admission import make_pool
from lbmux.manager.api_client import ApiClient, trusting
from lbmux.manager.api_models import NodesAnswer
from lbmux.manager.identity import Identity
from lbmux.manager.manager_state import Manager
from lbmux.manager.node_client import NodeClient
from lbmux.manager.node_messages import HealthLine, LoadLine, View, WeightLine
from lbmux.manager.proposals import Proposal
from lbmux.manager.relayed_node import RelayedNode
from lbmux.manager.store.open_store import open_store
from tests.api.answering import said
from tests.manager.running import at_once
from tests.manager.test_nodes import WAIT_S, Lab, Node, serving, until
from tests.manager.test_pool import ALICE, file

UP, DOWN = ("web", "b1", True, "connected"), ("web", "b1", False, "refused")


@dataclass
class Two:
    """Two managers, of which the first is primary until it stops; an agent at one of them, and a mux at each."""

    lab: Lab
    m1: Manager
    m2: Manager
    first: AsyncExitStack
    views: dict[str, dict[tuple[str, str], HealthLine]] = field(default_factory=dict)
    kept: dict[str, tuple[str, ...] | None] = field(default_factory=dict)
    weights: dict[str, tuple[WeightLine, ...]] = field(default_factory=dict)
    states: list[HealthLine] = field(default_factory=lambda: [UP])

    @asynccontextmanager
    async def agent(self, *managers: Manager) -> AsyncIterator[NodeClient]:
        client = NodeClient(
            [one.url for one in managers], self.lab.identity("h1"), "agent", self.lab.path / "h1.pool", ("10.0.0.1",)
        )
        client.health = lambda: tuple(self.states)
        async with client.following(lambda _: asyncio.sleep(0)):
            await until(lambda: client.manager)
            yield client

    @asynccontextmanager
    async def mux(self, name: str, *managers: Manager) -> AsyncIterator[Node]:
        node = self.lab.node(name, *managers)
        view = self.views[name] = {}

        def take(new: View) -> None:
            view.update((line[:2], line) for line in new.lines)
            self.kept[name] = new.kept
            if new.weights is not None:
                self.weights[name] = new.weights

        node.client.on_view = take
        async with node.client.following(node.accept):
            await until(lambda: node.client.manager)
            yield node

    async def seen(self, line: HealthLine, *muxes: str) -> None:
        await until(lambda: all(self.views[name].get(line[:2]) == line for name in muxes))


def run(tmp_path: Path, scenario: Callable[[Two], Awaitable[None]]) -> None:
    async def running() -> None:
        own = Identity(tmp_path / "m1")
        async with asyncio.timeout(3 * WAIT_S), open_store(str(tmp_path / "store")) as store, AsyncExitStack() as first:
            _, token = await make_pool(store, own, "localhost", ["127.0.0.1"], time.time())
            m1 = Manager(store, own, "")
            lab = Lab(tmp_path, [m1], token)
            await first.enter_async_context(serving(m1))
            await until(lambda: m1.is_primary)
            await lab.pool.apply(Proposal(file(1)), ALICE)
            m2 = Manager(store, lab.identity("m2", "manager"), "")
            async with serving(m2):
                await scenario(Two(lab, m1, m2, first))

    asyncio.run(running())


def test_health_reaches_every_mux_whichever_manager_they_have(tmp_path: Path) -> None:
    async def scenario(two: Two) -> None:
        async with two.agent(two.m2) as agent, two.mux("mux1", two.m1), two.mux("mux2", two.m2):
            await two.seen(UP, "mux1", "mux2")
            two.states = [DOWN]
            agent.health_changed.send()
            await two.seen(DOWN, "mux1", "mux2")
            assert two.m1.health.view.number == two.m2.health.view.number

    run(tmp_path, scenario)


def test_an_edge_that_balances_reports_as_an_agent_and_gets_the_view_as_a_mux(tmp_path: Path) -> None:
    async def scenario(two: Two) -> None:
        hosts = ("10.0.0.1", "10.0.0.9")
        edge = NodeClient([two.m2.url], two.lab.identity("e1"), "edge", two.lab.path / "e1.pool", hosts)
        view = two.views["e1"] = {}
        edge.health = lambda: tuple(two.states)
        edge.on_view = lambda new: view.update((line[:2], line) for line in new.lines)
        async with two.mux("mux1", two.m1), edge.following(lambda _: asyncio.sleep(0)):
            await two.seen(UP, "mux1", "e1")
            two.states = [DOWN]
            edge.health_changed.send()
            await two.seen(DOWN, "mux1", "e1")

    run(tmp_path, scenario)


def test_an_edge_that_does_not_balance_gets_no_view(tmp_path: Path) -> None:
    async def scenario(two: Two) -> None:
        edge, views = NodeClient([two.m1.url], two.lab.identity("e1"), "edge", two.lab.path / "e1.pool"), list[View]()
        edge.on_view = views.append
        async with two.agent(two.m2), two.mux("mux1", two.m1), edge.following(lambda _: asyncio.sleep(0)):
            await until(lambda: edge.manager)
            await two.seen(UP, "mux1")
            before = two.m1.health.view.number
            await until(lambda: two.m1.health.view.number > before)
        assert views == []

    run(tmp_path, scenario)


def test_only_what_changed_goes_to_the_primary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = list[tuple[int, bool]]()

    async def scenario(two: Two) -> None:
        collect = two.m1.health.collect

        def noted(agent: str, lines: Iterable[HealthLine], whole: bool, via: str = "") -> None:
            noted_lines = tuple(lines)
            taken.append((len(noted_lines), whole))
            collect(agent, noted_lines, whole, via)

        monkeypatch.setattr(two.m1.health, "collect", noted)
        two.states = [UP, *(("web", f"b{n}", True, "connected") for n in range(50, 60))]
        async with two.agent(two.m2) as agent, two.mux("mux1", two.m1):
            await two.seen(UP, "mux1")
            two.states[0] = DOWN
            agent.health_changed.send()
            await two.seen(DOWN, "mux1")
            del two.states[1:]
            agent.health_changed.send()
            await until(lambda: taken[-1] == (1, True))
        assert taken == [(11, True), (1, False), (1, True)]

    run(tmp_path, scenario)


def test_every_mux_gets_the_weights_that_the_primary_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_weights, "CHANGE_S", 0.0)
    taken = list[LoadLine]()

    async def scenario(two: Two) -> None:
        collect = two.m1.health.collect_loads

        def noted(loads: Iterable[LoadLine]) -> None:
            found = tuple(loads)
            taken.extend(found)
            collect(found)

        monkeypatch.setattr(two.m1.health, "collect_loads", noted)
        config = yaml.safe_load(file(1))
        backends = [{"name": f"b{n}", "dip": f"10.0.0.{n}", "weight": "auto"} for n in (1, 2, 3)]
        config["services"][0] |= {"health": {"kind": "tcp", "by": "agent"}, "backends": backends}
        await two.lab.pool.apply(Proposal(yaml.safe_dump(config).encode()), ALICE)
        async with two.agent(two.m2) as agent, two.mux("mux1", two.m1), two.mux("mux2", two.m2):
            first = tuple(("web", f"b{n}", 100) for n in (1, 2, 3))
            await until(lambda: two.weights == {"mux1": first, "mux2": first})
            collect([("web", "b2", 0.5, 0, 0), ("web", "b3", 0.5, 0, 0)])
            for load in OVERLOADED:
                agent.loads = partial(tuple, (load, ("web", "b2", 0.9, 2.0, 6.0)))  # b2 is not on its host
                agent.health_changed.send()
                await until(lambda: load in taken)  # noqa: B023 -- called within the turn
            assert {line[1] for line in taken} == {"b1"}
            changed = (("web", "b1", 75), *first[1:])
            await until(lambda: two.weights == {"mux1": changed, "mux2": changed})

    run(tmp_path, scenario)


OVERLOADED = (("web", "b1", 0.9, 2.0, 6.0), ("web", "b1", 0.9, 2.0, 7.0))


def test_every_mux_gets_the_primary_s_decision_about_watermarks(tmp_path: Path) -> None:
    async def scenario(two: Two) -> None:
        health = {"kind": "tcp", "by": "agent", "watermark": 0.5}
        config = yaml.safe_load(file(1))
        config["services"][0]["health"] = health
        await two.lab.pool.apply(Proposal(yaml.safe_dump(config).encode()), ALICE)
        async with two.agent(two.m2) as agent, two.mux("mux1", two.m1), two.mux("mux2", two.m2):
            await two.seen(UP, "mux1", "mux2")
            assert two.kept == {"mux1": (), "mux2": ()}
            two.states = [DOWN]
            agent.health_changed.send()
            await until(lambda: two.kept == {"mux1": ("web",), "mux2": ("web",)})

    run(tmp_path, scenario)


@pytest.mark.slow
def test_the_host_of_a_lost_agent_is_down_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_health, "AGENT_SILENCE_S", 0.2)
    monkeypatch.setattr(NodeClient, "_say_goodbye", at_once)
    silent = ("web", "b1", False, pool_health.SILENT)

    async def scenario(two: Two) -> None:
        async with two.mux("mux1", two.m1), two.mux("mux2", two.m2):
            for manager in (two.m1, two.m2):
                async with two.agent(manager):
                    await two.seen(UP, "mux1", "mux2")
                await two.seen(silent, "mux1", "mux2")

    run(tmp_path, scenario)


@pytest.mark.slow
def test_the_host_of_an_agent_that_stops_in_an_orderly_way_is_up_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_health, "AGENT_SILENCE_S", 0.1)
    silent = ("web", "b1", False, pool_health.SILENT)

    async def scenario(two: Two) -> None:
        async with two.mux("mux1", two.m1), two.mux("mux2", two.m2):
            for manager in (two.m1, two.m2):
                monkeypatch.setattr(pool_health, "RESTART_S", 0.5)
                async with two.agent(manager):
                    await two.seen(UP, "mux1", "mux2")
                stopped = time.monotonic()
                await two.seen(silent, "mux1", "mux2")
                assert time.monotonic() - stopped >= 0.4

    run(tmp_path, scenario)


def test_an_agent_reports_backends_of_its_own_host_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(two: Two) -> None:
        other = ("web", "b2", False, "refused")
        await two.lab.pool.apply(Proposal(file(1, 2)), ALICE)
        await until(lambda: two.m2.state.revision == 2)
        two.states = [UP, other]
        async with two.agent(two.m2), two.mux("mux1", two.m1):
            await two.seen(UP, "mux1")
            assert two.views["mux1"] == {("web", "b1"): UP}
        assert "agent h1 reports web/b2, which is on another host: ignored" in caplog.text

    run(tmp_path, scenario)


@pytest.mark.slow
def test_a_new_primary_marks_nothing_down_and_gets_what_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_client, "RECONNECT_S", 0.05)

    async def scenario(two: Two) -> None:
        both = two.m1, two.m2
        async with two.agent(*both) as agent, two.mux("mux1", *both), two.mux("mux2", two.m2):
            await two.seen(UP, "mux1", "mux2")
            await two.first.aclose()
            await until(lambda: two.m2.is_primary and agent.manager == two.m2.url)
            await until(lambda: two.m2.health.local)
            assert two.views == {"mux1": {("web", "b1"): UP}, "mux2": {("web", "b1"): UP}}
            two.states = [DOWN]
            agent.health_changed.send()
            await two.seen(DOWN, "mux1", "mux2")

    run(tmp_path, scenario)


def test_a_view_of_a_primary_that_was_replaced_is_refused(tmp_path: Path) -> None:
    async def scenario(two: Two) -> None:
        async with two.mux("mux1", two.m1) as mux, two.agent(two.m1) as agent:
            await two.seen(UP, "mux1")
            await until(lambda: two.m1.reports["mux1"].in_force)  # or a state in flight sets the epoch
            assert mux.client.held is not None
            mux.client.held = mux.client.held.model_copy(update={"epoch": 99})
            two.states = [DOWN]
            agent.health_changed.send()
            await until(lambda: two.m1.stale_refusals)
            assert two.views["mux1"] == {("web", "b1"): UP}

    run(tmp_path, scenario)


def test_every_manager_knows_and_reaches_all_nodes(tmp_path: Path) -> None:
    async def scenario(two: Two) -> None:
        server = ControlServer(tmp_path / "x.sock", {CountFlows: said({"version": 1, "program": "mux", "flows": 7})})
        async with two.mux("mux1", two.m1) as mux1, two.mux("mux2", two.m2) as mux2:
            mux1.client.answering = mux2.client.answering = server.answers
            await until(lambda: "mux2" in two.m1.nodes)
            for manager in (two.m1, two.m2):
                ca = two.m1.identity.ca.decode()
                client = ApiClient([manager.url], two.lab.token, trusting(ca))
                nodes = (await asyncio.to_thread(client.get, "/v1/nodes", NodesAnswer)).nodes
                assert [(one.node, one.manager) for one in nodes] == [("mux1", two.m1.url), ("mux2", two.m2.url)]
                for name in ("mux1", "mux2"):
                    counted = await asyncio.to_thread(ControlClient(RelayedNode(client, name)).ask, CountFlows())
                    assert counted.flows == 7
                with pytest.raises(ControlError, match="no such node"):
                    await asyncio.to_thread(ControlClient(RelayedNode(client, "mux3")).ask, CountFlows())
        await until(lambda: not two.m1.nodes["mux2"].connected)

    run(tmp_path, scenario)


def test_only_managers_are_peers(tmp_path: Path) -> None:
    async def scenario(two: Two) -> None:
        tls = two.lab.identity("mux1").client_context()
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(f"{two.m1.url}/v1/peer", ssl=tls)
        assert refused.value.status == 403

    run(tmp_path, scenario)
