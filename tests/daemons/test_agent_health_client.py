"""Health by agents: real agents and a real mux, servers that come and go, agents that die, another token."""

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.loopback import at_loopback
from lbmux.config.models import Config
from lbmux.health import agent_health_client
from lbmux.health.agent_channel import HealthPublisher, read_token
from lbmux.lab.lab import Lab
from tests.api.asking import ask
from tests.daemons.running_daemons import Daemon, running
from tests.daemons.slow_lab import VIPS, to_one_mux
from tests.daemons.web_lab import echo, line, server, to_host, wait_for_rows, web

pytestmark = pytest.mark.root


@pytest.fixture
def token(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "token"
    path.write_text("0123456789abcdef0123456789abcdef\n")
    path.chmod(0o600)
    yield path


def until(holds: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.02)


def states(mux: Daemon) -> dict[str, str]:
    return {line["backend"]: line["state"] for line in ask(mux.control, "health")["health"]}


def reasons(mux: Daemon) -> dict[str, str]:
    return {line["backend"]: line["reason"] for line in ask(mux.control, "health")["health"]}


def reported(mux: Daemon) -> dict[str, str]:
    """Return the states of the backends that an agent reported."""
    why = reasons(mux)
    return {backend: state for backend, state in states(mux).items() if "its agent: " in why[backend]}


def configured(lab: Lab) -> None:
    config: dict[str, Any] = {"muxes": ["10.0.1.2"], "services": [web(by="agent")], "flows": {"limit": 4096}}
    lab.write_config(config)
    to_one_mux(lab)


def test_a_mux_knows_what_the_agents_find(lab: Lab, token: Path) -> None:
    configured(lab)
    option = ("--health-token", str(token))
    with (
        running(lab, "mux1", "mux", *option) as mux,
        running(lab, "host1", "agent", *option) as first,
        running(lab, "host2", "agent", *option),
        server(lab, 2),
    ):
        with server(lab, 1):
            # An agent may probe before its server listens, and report "down" first; only the lasting state counts.
            until(lambda: reported(mux) == {"h1": "up", "h2": "up"}, 15)
        until(lambda: states(mux) == {"h1": "down", "h2": "up"}, 15)
        assert "refused" in reasons(mux)["h1"]
        first.tell(signal.SIGKILL)
        until(lambda: "has been silent for" in reasons(mux)["h1"], 15)
        assert states(mux) == {"h1": "down", "h2": "up"}  # without reports a mux keeps the known states
        with server(lab, 1), running(lab, "host1", "agent", *option):
            until(lambda: states(mux) == {"h1": "up", "h2": "up"}, 20)


def test_a_drain_ends_with_the_last_connection_of_the_host(lab: Lab, token: Path) -> None:
    """The mux tracks changes only, so by itself it would know after the idle time of 900 s."""
    service = web(by="agent") | {"flows": "changed"}
    lab.write_config({"muxes": ["10.0.1.2"], "services": [service], "flows": {"limit": 4096}})
    to_one_mux(lab)
    option = ("--health-token", str(token))
    with (
        running(lab, "mux1", "mux", *option) as mux,
        running(lab, "host1", "agent", *option),
        running(lab, "host2", "agent", *option),
        server(lab, 1),
        server(lab, 2),
    ):
        until(lambda: reported(mux) == {"h1": "up", "h2": "up"}, 15)
        wait_for_rows(mux, "h1", "h2")
        connection = to_host(lab, 1)
        ask(mux.control, "override", backend="h1", override="drain")
        echo(connection)
        assert not line(mux.control, "h1")["drained"]
        connection.close()
        until(lambda: line(mux.control, "h1")["drained"], 30)


def test_an_agent_in_mode_local_probes_the_vip_where_the_server_has_it(lab: Lab, token: Path) -> None:
    """Nothing listens at the DIP."""
    backend = {"name": "h3", "dip": "10.1.3.2", "port": 80}
    lab.write_config({"muxes": ["10.0.1.2"], "services": [web(by="agent") | {"backends": [backend]}]})
    option = ("--health-token", str(token))
    with (
        running(lab, "mux1", "mux", *option) as mux,
        running(lab, "host3", "agent", "--mode", "local", *option),
    ):
        with lab.inside("host3", lambda: socket.create_server((VIPS[4], 80))):
            until(lambda: reported(mux) == {"h3": "up"}, 15)
        until(lambda: states(mux) == {"h3": "down"}, 15)
        assert "refused" in reasons(mux)["h3"]


def test_an_agent_with_another_token_is_not_believed(lab: Lab, token: Path, tmp_path: Path) -> None:
    configured(lab)
    other = tmp_path / "other"
    other.write_text("fedcba9876543210fedcba9876543210\n")
    other.chmod(0o600)
    with (
        running(lab, "mux1", "mux", "--health-token", str(token)) as mux,
        running(lab, "host1", "agent", "--health-token", str(other)) as agent,
    ):
        agent.wait_for("the mux has another token")
        mux.wait_for("no health from the agent at 10.1.1.2, port 6082")
        assert states(mux)["h1"] == "down" and "no report" in reasons(mux)["h1"]


def test_a_starting_mux_does_not_take_a_backend_with_a_dead_agent_as_up(lab: Lab, token: Path) -> None:
    configured(lab)
    option = ("--health-token", str(token))
    with running(lab, "host2", "agent", *option), server(lab, 1), server(lab, 2):
        for _ in range(2):  # also the second time: tables in user space end with the mux
            with running(lab, "mux1", "mux", *option) as mux:
                until(lambda mux=mux: reported(mux) == {"h2": "up"}, 15)
                assert states(mux) == {"h1": "down", "h2": "up"}
                assert reasons(mux)["h1"] == "not probed yet; no report from its agent yet"
                wait_for_rows(mux, "h2")
        with running(lab, "mux1", "mux", *option) as mux, running(lab, "host1", "agent", *option):
            until(lambda: states(mux) == {"h1": "up", "h2": "up"}, 15)
            wait_for_rows(mux, "h1", "h2")


def silent(lab: Lab, node: str, count: int) -> list[socket.socket]:
    """Connections to an agent's port that say nothing."""

    def connect() -> list[socket.socket]:
        return [socket.create_connection(("10.1.1.2", 6082), timeout=5) for _ in range(count)]

    return lab.inside(node, connect)


@pytest.mark.parametrize("node", ["client", "mux1"], ids=["from anywhere", "from the mux's machine"])
def test_silent_connections_do_not_lock_a_mux_out(lab: Lab, token: Path, node: str) -> None:
    configured(lab)
    option = ("--health-token", str(token))
    with running(lab, "host1", "agent", *option) as agent, server(lab, 1):
        held = silent(lab, node, 300)
        try:
            with running(lab, "mux1", "mux", *option) as mux:
                until(lambda: reported(mux) == {"h1": "up"}, 5)
            said = "is not one of `muxes` in the configuration" in agent.log
            assert said == (node == "client")
        finally:
            for sock in held:
                sock.close()


def test_a_mux_without_a_token_does_not_start(lab: Lab) -> None:
    configured(lab)
    with pytest.raises(AssertionError, match="give its file with --health-token"), running(lab, "mux1", "mux"):
        pass


def probed_by_agent(port: int) -> Config:
    """One backend, on a host whose agent listens at this port of the loopback."""
    backend = {"name": "h1", "dip": "10.1.1.10", "host": "10.0.0.1"}
    service = {"name": "web", "vip": VIPS[4], "protocol": "tcp", "port": 80, "backends": [backend]}
    service |= {"health": {"kind": "tcp", "by": "agent", "agent_port": port}}
    return at_loopback(Config.model_validate({"services": [service]}))


def test_an_agent_that_accepts_and_stays_silent_is_logged_once(
    token: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_health_client, "SILENCE_S", 0.05)
    monkeypatch.setattr(agent_health_client, "RETRY_S", (0.01, 0.02))
    connected = 0

    async def run() -> None:
        async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connected
            connected += 1
            await asyncio.sleep(5)
            writer.close()

        silent = await asyncio.start_server(hold, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        async with silent, agent_health_client.AgentHealthClient(lambda *_: None, token) as client:
            client.configure(probed_by_agent(port))
            async with asyncio.timeout(10):
                while connected < 4:
                    await asyncio.sleep(0.01)
            silent.close()

    asyncio.run(run())
    (said,) = [line for line in caplog.messages if "no health from" in line]
    assert said.endswith(": it is silent")


@pytest.mark.parametrize(
    "message", [{"backends": [7]}, {"backends": [], "connections": [1]}, {"backends": [], "loads": 1}]
)
def test_a_message_of_another_form_ends_the_connection_and_not_the_client(
    token: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, message: dict[str, Any]
) -> None:
    monkeypatch.setattr(agent_health_client, "RETRY_S", (0.01, 0.02))
    connected = 0

    async def run() -> None:
        async def publish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connected
            connected += 1
            publisher = await HealthPublisher.opened(reader, writer, read_token(token))
            await publisher.send(message)
            writer.close()

        agent = await asyncio.start_server(publish, "127.0.0.1", 0)
        async with agent, agent_health_client.AgentHealthClient(lambda *_: None, token) as client:
            client.configure(probed_by_agent(agent.sockets[0].getsockname()[1]))
            async with asyncio.timeout(10):
                while connected < 3:
                    await asyncio.sleep(0.01)

    asyncio.run(run())
    assert "no health from" in caplog.text
