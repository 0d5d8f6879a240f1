"""A pool to look at: two muxes' tables, each behind a control socket, and a server of the page.

h3 of service web is down, h4 is disabled at the second mux alone.  Both muxes have a router, the second a silent
one, too.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from lbmux.api.answers import Bgp, Health, HealthLine, History, HistoryEvent
from lbmux.api.requests import GetBgp, GetHealth, GetHistory
from lbmux.backends.override_commands import set_admin_state
from lbmux.backends.overrides import OverriddenState, Overrides
from lbmux.backends.tracker import BackendTracker
from lbmux.bgp.announced import BgpState
from lbmux.bgp.bgp_settings import Neighbour, Route, routes_of
from lbmux.config.models import Config
from lbmux.daemons.announcement import bgp_answer
from lbmux.daemons.drivers import Driver
from lbmux.daemons.status_handlers import StatusHandlers
from lbmux.daemons.traffic_sampler import traffic_totals
from lbmux.lab.scoreboard import scoreboard_report
from lbmux.lab.scoreboard.experiment import Load, Outcome
from lbmux.linux.next_hops import NextHop
from lbmux.metrics.traffic_history import TrafficHistory
from lbmux.tools.web.web_server import Site
from tests.api.answering import answering
from tests.linux.inside import CONFIG, MAC, Inside

Visit = Callable[[TestClient[Any, Any]], Awaitable[None]]
WEB, DNS = CONFIG["services"]
OUT = [{"name": "h3", "dip": "10.1.3.2", "weight": 3}, {"name": "h4", "dip": "10.1.4.2"}]
POOL = CONFIG | {"services": [WEB | {"health": {"fall": 1}, "backends": [*WEB["backends"], *OUT]}, DNS]}
UP = Neighbour("10.0.1.1", 64512, "established", 60.0, 2)
OUTCOMES = [
    Outcome("ananta", "kill-mux", 500, 0, 0, 13.4, 200, 0, 0.0),
    Outcome("ananta", "kill-backend", 500, 240, 237, 12.0, 200, 6, 211.0, {"reset": 240, "no answer": 6}),
    Outcome("cloudflare", "kill-mux", 500, 240, 240, 44.0, 200, 0, 103.0, {"reset": 240}),
]
FAILURES = [("seesaw", "cut-link", "keepalived: no answer in 5 s")]


class Served(Inside):
    """A mux's tables, what it knows of its backends and its routers; ``handlers``: of its control socket."""

    def __init__(
        self, path: Path, *neighbours: Neighbour, disabled: str = "", pool: dict[str, Any] = POOL
    ) -> None:  # fmt: skip
        config = Config.model_validate(pool)
        super().__init__(pool)
        self.path, self.neighbours, self.config = path, neighbours, config
        self.tracker, self.overrides = BackendTracker(), Overrides()
        self.tracker.configure(config)
        for key in self.tracker.unprobed():
            is_up = key != ("web", "h3")
            self.tracker.record(key, is_up, "connected" if is_up else "connection refused")
        if disabled:
            self.override("disable", disabled)
        self.in_force()
        driver = Driver("mux", "eth0", self.tables, 0, "packet")
        about = {"interface": "eth0", "addresses": ["10.0.1.2"]}
        self.handlers = StatusHandlers(lambda: self.snapshot, driver, path, about).handlers()
        self.handlers |= {GetHealth: self.health, GetBgp: self.bgp, GetHistory: self.traffic_history}
        self.history, self.events = TrafficHistory(), list[HistoryEvent]()

    def override(self, admin_state: OverriddenState | None, backend: str) -> None:
        self.overrides, _ = set_admin_state(admin_state, backend, None, 0)(self.config, self.overrides)

    def in_force(self) -> None:
        self.mux.commit(self.mux.plan(self.tracker.effective(self.config, self.overrides)))
        for destination in self.mux.destinations():
            self.mux.set_next_hop(destination, NextHop(1, MAC, MAC, 1500))

    async def health(self, request: GetHealth) -> Health:
        lines = self.tracker.lines(self.config, self.config, self.overrides)
        return Health(1, "mux", [HealthLine(**line, drained=False) for line in lines])

    def sample(self, second: int) -> None:
        self.history.sample(second, traffic_totals(self.snapshot, in_kernel=False))

    async def traffic_history(self, request: GetHistory) -> History:
        """Sample when asked: no task runs here."""
        self.sample(int(time.time()))
        events = [one for one in self.events if one.time > request.since]
        return History(1, "mux", self.history.since(int(request.since)), events)

    async def bgp(self, request: GetBgp) -> Bgp:
        routes = routes_of(self.config) if self.neighbours else frozenset[Route]()
        return bgp_answer(BgpState("bird", routes, self.neighbours))


@pytest.fixture
def muxes(tmp_path: Path) -> Iterator[list[Served]]:
    one = Served(tmp_path / "mux1.sock", UP)
    other = Served(tmp_path / "mux2.sock", UP, Neighbour("10.0.2.1", 64512, "active"), disabled="h4")
    with ExitStack() as stack:
        for mux in (one, other):
            stack.enter_context(answering(mux.path, mux.handlers))
        yield [one, other]


@pytest.fixture
def site(muxes: list[Served], tmp_path: Path) -> Site:
    """Yield a site whose scoreboard is a file of `lab run -w`."""
    scoreboard = tmp_path / "scoreboard.json"
    scoreboard.write_text(json.dumps(scoreboard_report.document(OUTCOMES, FAILURES, Load(), 123.4)))
    return Site([mux.path for mux in muxes], scoreboard, 0.1)


def visit(site: Site, what: Visit, token: str | None = None) -> None:
    """Do something as a client of the page's server."""

    async def there() -> None:
        async with TestClient(TestServer(site.application(token))) as client:
            await what(client)

    asyncio.run(there())
