"""Nodes and managers: states, reports, refusals, fencing, and starts without a manager."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from lbmux.backends.override_commands import set_weight
from lbmux.errors import LbmuxError
from lbmux.manager import node_client, nodes
from lbmux.manager.admission import make_pool
from lbmux.manager.api_client import ApiClient, trusting
from lbmux.manager.authority import KeyPair, Subject, issue, new_key, new_request
from lbmux.manager.held_state import NodeState, read_state
from lbmux.manager.http_server import HttpServer
from lbmux.manager.identity import Identity
from lbmux.manager.manager_state import Manager
from lbmux.manager.node_client import NodeClient
from lbmux.manager.node_messages import Alive, Hello, Refused, Report, encode_message, parse_message
from lbmux.manager.pool import Pool
from lbmux.manager.proposals import Proposal
from lbmux.manager.store.open_store import open_store
from tests.manager.test_pool import ALICE, file

WAIT_S = 10


@dataclass
class Node:
    """A node that only remembers; ``refuse``: the revisions that it cannot put in force."""

    client: NodeClient
    states: list[NodeState] = field(default_factory=list)
    refuse: set[int] = field(default_factory=set)

    async def accept(self, state: NodeState) -> None:
        if state.revision in self.refuse:
            raise LbmuxError("table full")
        self.states.append(state)

    @property
    def seen(self) -> list[tuple[int, int]]:
        return [(one.revision, one.stored.version) for one in self.states]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.005)


@dataclass
class Lab:
    """One or two managers that share a store, and nodes of their pool."""

    path: Path
    managers: list[Manager]
    token: str
    """An admin's."""

    def client(self, token: str = "") -> ApiClient:
        ca = self.managers[0].identity.ca.decode()
        return ApiClient([self.managers[0].url], token or self.token, trusting(ca))

    @property
    def pool(self) -> Pool:
        return next(one.pool for one in self.managers if one.is_primary)

    def identity(self, name: str, role: str = "node", pool: str = "") -> Identity:
        """A certificate from the CA, without the way through a token."""
        ca, key, own = self.managers[0].identity.authority, new_key(), Identity(self.path / name)
        assert ca is not None
        subject = Subject(pool or self.managers[0].pool_id, role, name)
        certificate = issue(ca, new_request(key, "localhost", ["127.0.0.1"]), subject, datetime.now(UTC))
        own.write(ca.certificate, KeyPair(certificate, key))
        return own

    def node(self, name: str, *managers: Manager) -> Node:
        identity = self.identity(name) if not (self.path / name).exists() else Identity(self.path / name)
        urls = [one.url for one in managers or self.managers]
        return Node(NodeClient(urls, identity, "mux", self.path / name / "pool"))


@asynccontextmanager
async def serving(manager: Manager) -> AsyncIterator[None]:
    async with HttpServer(manager).listening("127.0.0.1", 0) as port:
        manager.url = f"https://127.0.0.1:{port}"
        async with manager.running():
            await until(lambda: manager.primary.url)
            yield


def run(tmp_path: Path, scenario: Callable[[Lab], Awaitable[None]], count: int = 1) -> None:
    async def running() -> None:
        async with asyncio.timeout(3 * WAIT_S), open_store(str(tmp_path / "store")) as store:
            own = Identity(tmp_path / "m1")
            _, token = await make_pool(store, own, "localhost", ["127.0.0.1"], time.time())
            lab = Lab(tmp_path, [Manager(store, own, "")], token)
            async with serving(lab.managers[0]):
                await until(lambda: lab.managers[0].is_primary)
                if count == 2:
                    lab.managers.append(Manager(store, lab.identity("m2", "manager"), ""))
                    async with serving(lab.managers[1]):
                        await scenario(lab)
                else:
                    await scenario(lab)

    asyncio.run(running())


def test_a_node_gets_a_snapshot_and_then_changes(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        node, reports = lab.node("mux1"), lab.managers[0].reports
        await lab.pool.apply(Proposal(file(1, 2)), ALICE)
        async with node.client.following(node.accept):
            await until(lambda: node.seen == [(1, 0)])
            await lab.pool.override(set_weight(5, "b1", None, 1.0), ALICE)
            await until(lambda: node.seen == [(1, 0), (1, 1)])
            await lab.pool.apply(Proposal(file(1, 2, 3)), ALICE)
            await until(lambda: reports["mux1"].revision == 2)
            assert node.states[-1].text.encode() == file(1, 2, 3) and node.states[-1].stored.overrides[0].weight == 5
            assert (reports["mux1"].role, reports["mux1"].overrides, reports["mux1"].refused) == ("mux", 1, "")
        await until(lambda: not reports)
        await until(lambda: read_state(lab.path / "mux1" / "pool") == node.states[-1])  # stored after the report
        again = lab.node("mux1")
        async with again.client.following(again.accept):
            await until(lambda: "mux1" in reports and reports["mux1"].revision == 2)
        assert again.states == []  # the node already had it

    run(tmp_path, scenario)


def test_a_node_refuses_with_a_reason(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        node, reports = lab.node("mux1"), lab.managers[0].reports
        node.refuse.add(2)
        await lab.pool.apply(Proposal(file(1)), ALICE)
        async with node.client.following(node.accept):
            await until(lambda: node.seen == [(1, 0)])
            await lab.pool.apply(Proposal(file(1, 2)), ALICE)
            await until(lambda: reports["mux1"].refused == "table full")
            assert reports["mux1"].revision == 2
            held = read_state(lab.path / "mux1" / "pool")
            assert held is not None and held.revision == 1  # the state in force
            await lab.pool.apply(Proposal(file(1, 2, 3)), ALICE)
            await until(lambda: node.seen == [(1, 0), (3, 0)])
            await until(lambda: not reports["mux1"].refused)

    run(tmp_path, scenario)


def test_a_busy_node_gets_the_last_of_many_changes(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        node, busy = lab.node("mux1"), asyncio.Event()

        async def accept(state: NodeState) -> None:
            await node.accept(state)
            await busy.wait()

        await lab.pool.apply(Proposal(file(1)), ALICE)
        async with node.client.following(accept):
            await until(lambda: node.seen == [(1, 0)])
            for weight in range(2, 8):
                await lab.pool.apply(Proposal(file(1, weight=weight)), ALICE)
            await until(lambda: (latest := node.client.__dict__["_latest"]) and latest.revision == 7)
            busy.set()
            await until(lambda: node.seen == [(1, 0), (7, 0)])

    run(tmp_path, scenario)


def test_a_file_that_waits_or_was_refused_is_not_lost(tmp_path: Path) -> None:
    """A change of overrides is sent without the file, to a node that has not put the file in force yet."""

    async def scenario(lab: Lab) -> None:
        node, slow, held = lab.node("mux1"), lab.node("mux2"), asyncio.Event()
        node.refuse.add(2)

        async def accept(state: NodeState) -> None:
            await slow.accept(state)
            await held.wait()

        await lab.pool.apply(Proposal(file(1)), ALICE)
        async with node.client.following(node.accept), slow.client.following(accept):
            await until(lambda: node.seen == slow.seen == [(1, 0)])
            await lab.pool.apply(Proposal(file(1, 2)), ALICE)
            await until(lambda: lab.managers[0].reports["mux1"].refused == "table full")
            waiting = slow.client.__dict__
            await until(lambda: waiting["_latest"] and waiting["_latest"].revision == 2)
            node.refuse.clear()
            await lab.pool.override(set_weight(5, "b1", None, 1.0), ALICE)
            await until(lambda: waiting["_latest"].overrides.version == 1)
            held.set()
            await until(lambda: node.seen == slow.seen == [(1, 0), (2, 1)])

    run(tmp_path, scenario)


def test_a_node_starts_with_what_it_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(state: NodeState) -> None:
        if state.revision == 2:
            raise LbmuxError("not here")

    async def scenario(lab: Lab) -> None:
        await lab.pool.apply(Proposal(file(1)), ALICE)
        first = await lab.node("mux1").client.first(WAIT_S, check)
        assert first.revision == 1
        await lab.pool.apply(Proposal(file(1, 2)), ALICE)
        assert await lab.node("mux1").client.first(WAIT_S, check) == first  # the new one is refused
        with pytest.raises(LbmuxError, match="not here"):
            await lab.node("mux2").client.first(WAIT_S, check)
        gone = NodeClient(["https://127.0.0.1:1"], Identity(lab.path / "mux1"), "mux", lab.path / "mux1" / "pool")
        assert await gone.first(0.05, check) == first

    run(tmp_path, scenario)


def test_a_node_moves_to_another_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_client, "RECONNECT_S", 0.05)

    async def scenario(lab: Lab) -> None:
        m1, m2 = lab.managers
        node = lab.node("mux1")
        await lab.pool.apply(Proposal(file(1)), ALICE)
        async with node.client.following(node.accept):
            await until(lambda: node.seen == [(1, 0)])
            here, other = (m1, m2) if node.client.manager == m1.url else (m2, m1)
            await node.client.__dict__["_socket"].close()
            await until(lambda: node.client.manager == other.url)
            await lab.pool.apply(Proposal(file(1, 2)), ALICE)
            await until(lambda: node.seen == [(1, 0), (2, 0)])
            assert list(other.reports) == ["mux1"] and not here.reports

    run(tmp_path, scenario, 2)


def test_a_node_does_not_wait_for_a_silent_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_client, "RECONNECT_S", 0.05)
    monkeypatch.setattr(node_client, "SILENCE_S", 1.0)
    monkeypatch.setattr(nodes, "ALIVE_S", 0.1)

    async def scenario(lab: Lab) -> None:
        silent, dialled = lab.identity("silent", "manager"), list[object]()
        tls = silent.server_context()
        server = await asyncio.start_server(lambda *peer: dialled.append(peer), "127.0.0.1", 0, ssl=tls)
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await lab.pool.apply(Proposal(file(1)), ALICE)
        node = Node(NodeClient([url, lab.managers[0].url], lab.identity("mux1"), "mux", lab.path / "pool"))
        node.client.__dict__["_next"] = 0
        async with server, node.client.following(node.accept):
            await until(lambda: node.seen == [(1, 0)])
            assert dialled and node.client.manager == lab.managers[0].url

    run(tmp_path, scenario)


async def dialogue(lab: Lab, identity: Identity, *texts: str) -> list[str]:
    """Send texts to a manager in place of a node, and return all that comes back until the connection ends."""
    tls, kinds = identity.client_context(), list[str]()
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{lab.managers[0].url}/v1/node", ssl=tls) as ws:
        for text in texts:
            await ws.send_str(text)
        async for message in ws:
            kinds.append(message.data)
    return kinds


def test_peers_that_are_not_nodes(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        own, hello = lab.identity("mux1"), Hello(role="mux", version="9", epoch=0, revision=0, overrides=0)
        newer = hello.model_copy(update={"protocols": (8, 9)}).model_dump_json()
        for texts, reason in [
            (["hello"], "not a message"),
            ([Report(revision=1, overrides=1).model_dump_json()], "report came before hello"),
            ([newer], "this side speaks 1, 2, 3, the other 8, 9"),
            ([encode_message(hello, "other")], "a message (hello) of pool other: this side belongs to pool"),
            ([hello.model_dump_json(), encode_message(Alive(), "other")], "a message (alive) of pool other"),
            ([hello.model_dump_json(), Refused(reason="x").model_dump_json()], "a node does not send refused"),
        ]:
            answer = parse_message((await dialogue(lab, own, *texts))[-1], lab.managers[0].pool_id)
            assert isinstance(answer, Refused) and reason in answer.reason
        assert not lab.managers[0].reports
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await dialogue(lab, lab.identity("mux2", pool="other"))
        assert refused.value.status == 403

    run(tmp_path, scenario)


def test_a_node_refuses_a_primary_that_was_replaced(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        (manager,), node = lab.managers, lab.node("mux1")
        await lab.pool.apply(Proposal(file(1)), ALICE)
        async with node.client.following(node.accept):
            await until(lambda: node.seen == [(1, 0)])
            held = node.client.held
            assert held is not None and held.epoch == manager.state.epoch == 1
            node.client.held = held.model_copy(update={"epoch": 8})  # the node has seen another primary
            first = manager.pool
            await first.override(set_weight(5, "b1", None, 1.0), ALICE)
            await until(lambda: manager.stale_refusals)
            await until(lambda: not manager.is_primary or manager.pool is not first)  # the manager has stepped down
        assert node.seen == [(1, 0)]

    run(tmp_path, scenario)
