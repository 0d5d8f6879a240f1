"""A mux's answer about its backends' health, without a daemon."""

import asyncio
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any

from lbmux.api import answers
from lbmux.api.protocol import VERSION
from lbmux.api.requests import GetHealth
from lbmux.backends.overrides import Overrides
from lbmux.backends.tracker import BackendTracker
from lbmux.config.models import Config
from lbmux.daemons.mux_health import Health
from lbmux.daemons.status_handlers import LINES_AN_ANSWER


def test_many_backends_come_in_parts_with_their_settings() -> None:
    count = 2 * LINES_AN_ANSWER + 1
    backends = [{"name": f"b{n}", "dip": str(IPv4Address("10.1.0.1") + n), "weight": n} for n in range(count)]
    service = {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80, "backends": backends}
    config = Config.model_validate({"services": [service]})
    reloader: Any = SimpleNamespace(config=config, wanted=config, overrides=Overrides())
    unused: Any = None
    health = Health(BackendTracker(), reloader, unused, unused)

    async def parts() -> list[answers.Health]:
        return [part async for part in health.health(GetHealth())]

    received = asyncio.run(parts())
    assert [len(part.health) for part in received] == [LINES_AN_ANSWER, LINES_AN_ANSWER, 1]
    assert {(part.version, part.program) for part in received} == {(VERSION, "mux")}
    lines = [line for part in received for line in part.health]
    assert [(line.backend, line.weight) for line in lines] == [(f"b{n}", n) for n in range(count)]


def test_without_backends_there_is_one_empty_part() -> None:
    config = Config(services=())
    reloader: Any = SimpleNamespace(config=config, wanted=config, overrides=Overrides())
    unused: Any = None
    health = Health(BackendTracker(), reloader, unused, unused)

    async def first() -> answers.Health:
        return await anext(health.health(GetHealth()))

    assert asyncio.run(first()) == answers.Health(VERSION, "mux", [])
