"""An agent's reports of its host's load, to a mux without a manager."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from lbmux.config.models import BackendKey, Config
from lbmux.daemons import agent_health
from lbmux.daemons.agent_health import AgentHealth
from lbmux.health.agent_health_client import AgentHealthClient
from lbmux.health.load import Load

HERE = ip_address("127.0.0.1")
WAITING = 3


@contextlib.contextmanager
def busy_server() -> Iterator[int]:
    """Yield the port of a server that does not accept, and for which connections wait."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server((str(HERE), 0), backlog=1000))
        for _ in range(WAITING):
            stack.enter_context(socket.create_connection(server.getsockname()))
        yield server.getsockname()[1]


def configured(port: int, agent_port: int) -> Config:
    """A service with a followed backend here, and one with a number for a weight."""
    health = {"by": "agent", "agent_port": agent_port, "interval_s": 0.1, "timeout_s": 0.1, "rise": 1}
    services = [
        {"name": name, "vip": "192.0.2.1", "protocol": "tcp", "port": at, "health": health,
         "backends": [{"name": "b1", "dip": "10.0.0.1", "port": port, "weight": weight}]}
        for at, (name, weight) in enumerate((("followed", "auto"), ("fixed", 5)), 80)
    ]  # fmt: skip
    config = Config.model_validate({"services": services})
    here = [
        one.model_copy(update={"backends": tuple(b.model_copy(update={"dip": HERE}) for b in one.backends)})
        for one in config.services
    ]
    return config.model_copy(update={"services": tuple(here)})


def test_loads_of_followed_backends_reach_a_mux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_health, "LOAD_S", 0.2)
    monkeypatch.setattr(agent_health, "SAMPLE_S", 0.05)
    (token := tmp_path / "token").write_text("0123456789abcdef")
    token.chmod(0o600)
    loads, found = list[tuple[BackendKey, Load]](), asyncio.Event()

    def on_load(key: BackendKey, load: Load) -> None:
        loads.append((key, load))
        if load.accept_queue >= WAITING:
            found.set()

    async def reporting(port: int) -> None:
        with socket.create_server((str(HERE), 0)) as free:
            agent_port = free.getsockname()[1]
        config = configured(port, agent_port)
        agent = AgentHealth(token)
        async with agent.running(), AgentHealthClient(lambda *_: None, token, [HERE], on_load) as mux:
            await agent.configure(config, [HERE])
            mux.configure(config)
            async with asyncio.timeout(20):
                await found.wait()

    with busy_server() as port:
        asyncio.run(reporting(port))
    assert {key for key, _ in loads} == {("followed", "b1")}
    assert all(0 <= load.cpu <= 1 and load.run_queue >= 0 for _, load in loads)
