"""Health by agents: real agents and a real mux, servers that come and go, agents that die, another token."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lbmux.control.control_socket import ask
from lbmux.lab.lab import Lab

from .daemons import Daemon, running
from .slow_lab import to_one_mux
from .test_health import server, web

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
            until(lambda: all("its agent: " in reason for reason in reasons(mux).values()), 15)
            assert states(mux) == {"h1": "up", "h2": "up"}
        until(lambda: states(mux) == {"h1": "down", "h2": "up"}, 15)
        assert "refused" in reasons(mux)["h1"]
        first.tell(signal.SIGKILL)
        until(lambda: "has said nothing for" in reasons(mux)["h1"], 15)
        assert states(mux) == {"h1": "down", "h2": "up"}  # a mux that hears nothing keeps what it knew
        with server(lab, 1), running(lab, "host1", "agent", *option):
            until(lambda: states(mux) == {"h1": "up", "h2": "up"}, 20)


def test_an_agent_with_another_token_is_not_believed(lab: Lab, token: Path, tmp_path: Path) -> None:
    configured(lab)
    other = tmp_path / "other"
    other.write_text("fedcba9876543210fedcba9876543210\n")
    other.chmod(0o600)
    with (
        running(lab, "mux1", "mux", "--health-token", str(token)) as mux,
        running(lab, "host1", "agent", "--health-token", str(other)) as agent,
    ):
        agent.wait_for("a mux with another token")
        mux.wait_for("nothing is heard from the agent at 10.1.1.2, port 6082")
        assert states(mux)["h1"] == "up" and "nothing heard" in reasons(mux)["h1"]


def test_a_mux_without_a_token_does_not_start(lab: Lab) -> None:
    configured(lab)
    with pytest.raises(AssertionError, match="name its file by --health-token"), running(lab, "mux1", "mux"):
        pass
