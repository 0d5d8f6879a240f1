"""A control client that asks a node over the node's connection to this manager."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lbmux.api.answers import Health
from lbmux.api.control_client import ControlClient
from lbmux.api.control_server import ControlServer
from lbmux.api.requests import GetCounters, GetHealth
from lbmux.errors import ControlError
from lbmux.manager.connected_node import ConnectedNode
from lbmux.manager.http_server import HttpServer
from tests.api.lines import health_line
from tests.manager.running import running_manager


async def health(request: GetHealth) -> AsyncIterator[Health]:
    for state in ("up", "down"):
        yield Health(1, "mux", [health_line(state=state)])


def test_a_node_answers_in_parts_refuses_or_is_unknown(tmp_path: Path) -> None:
    servers = list[HttpServer]()
    with running_manager(tmp_path, lambda server, application: servers.append(server)) as running:
        answering = ControlServer(tmp_path / "mux1.sock", {GetHealth: health}).answers
        with running.joined("mux1", "mux", answering):
            client = ControlClient(ConnectedNode("mux1", servers[0].relay, running.loop), 10.0)
            assert [one.state for one in client.whole(GetHealth()).health] == ["up", "down"]
            assert client.ask(GetHealth()).health[0].state == "up"  # the rest is not read
            with pytest.raises(ControlError, match="counters"):
                client.ask(GetCounters())
        with pytest.raises(ControlError, match="mux1: no such node is connected"):
            client.ask(GetHealth())
