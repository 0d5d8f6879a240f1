"""A manager on SQLite and a loopback port, in a thread of its own."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from lbmux.manager.admission import make_pool
from lbmux.manager.api_client import ApiClient, trusting
from lbmux.manager.authority import KeyPair, Subject, issue, new_key, new_request
from lbmux.manager.held_state import NodeState
from lbmux.manager.http_server import Extension, HttpServer
from lbmux.manager.identity import Identity
from lbmux.manager.manager_state import Manager
from lbmux.manager.node_client import Accept, NodeClient
from lbmux.manager.relay import Answering
from lbmux.manager.store.open_store import open_store

WAIT_S = 10


async def at_once(state: NodeState) -> None:
    """Put a state in force, at a node that has nothing."""


@dataclass(frozen=True)
class Running:
    """A primary; ``token`` is an admin's."""

    manager: Manager
    url: str
    token: str
    directory: Path
    loop: asyncio.AbstractEventLoop

    @property
    def ca(self) -> Path:
        return self.directory / "ca.crt"

    def client(self, token: str | None = None) -> ApiClient:
        return ApiClient([self.url], self.token if token is None else token, trusting(self.ca.read_text()))

    def options(self) -> list[str]:
        """The command line's options for this manager."""
        (self.directory / "token").write_text(self.token)
        return ["--manager", self.url, "--manager-ca", str(self.ca), "--token-file", str(self.directory / "token")]

    @contextlib.contextmanager
    def joined(
        self, name: str, role: Literal["mux", "agent", "edge"], answering: Answering, accept: Accept = at_once
    ) -> Iterator[NodeClient]:
        """Connect a node that answers requests, and says that states are in force unless ``accept`` refuses them."""
        ca, key, own = self.manager.identity.authority, new_key(), Identity(self.directory / name)
        assert ca is not None
        subject = Subject(self.manager.pool_id, "node", name)
        own.write(ca.certificate, KeyPair(issue(ca, new_request(key, name), subject, datetime.now(UTC)), key))
        client = NodeClient([self.url], own, role, self.directory / name / "state")
        client.answering = answering

        async def follow() -> None:
            async with client.following(accept):
                await asyncio.Event().wait()

        following = asyncio.run_coroutine_threadsafe(follow(), self.loop)
        try:
            wait_for(lambda: name in self.manager.reports)
            yield client
        finally:
            following.cancel()
            wait_for(lambda: name not in self.manager.reports)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


@contextlib.contextmanager
def running_manager(directory: Path, extend: Extension | None = None) -> Iterator[Running]:
    """A new pool's manager, once it is primary; ``extend`` adds routes to its server."""
    started, stop, running = threading.Event(), asyncio.Event(), list[Running]()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(_serve(directory, extend, running, started, stop))
        except BaseException as error:
            errors.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert started.wait(WAIT_S) and running, errors
        wait_for(lambda: running[0].manager.is_primary and running[0].manager.primary.url)
        yield running[0]
    finally:
        if running:
            running[0].loop.call_soon_threadsafe(stop.set)
        thread.join(WAIT_S)
    assert not errors and not thread.is_alive()


async def _serve(
    directory: Path, extend: Extension | None, running: list[Running], started: threading.Event, stop: asyncio.Event
) -> None:
    identity = Identity(directory / "identity")
    async with open_store(str(directory / "store")) as store:
        _, token = await make_pool(store, identity, "localhost", ["127.0.0.1"], time.time())
        manager = Manager(store, identity, "")
        async with HttpServer(manager, extend).listening("127.0.0.1", 0) as port:
            manager.url = f"https://127.0.0.1:{port}"
            async with manager.running():
                running.append(Running(manager, manager.url, token, identity.directory, asyncio.get_running_loop()))
                started.set()
                await stop.wait()
