"""Health checks in a mux: probes on its event loop, backend states in its tables."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lbmux.addresses import Address
from lbmux.api import answers
from lbmux.api.answers import BackendHealth
from lbmux.api.control_server import Handler, Kind
from lbmux.api.protocol import VERSION
from lbmux.api.requests import GetHealth
from lbmux.backends.auto_weights import AutoWeights
from lbmux.backends.tracker import BackendTracker
from lbmux.config.field_types import AUTO_WEIGHT
from lbmux.config.models import BackendKey, Config
from lbmux.daemons.background_task import background_task
from lbmux.daemons.daemon_host_probes import HostProbes
from lbmux.daemons.drain_watch import DrainWatch
from lbmux.daemons.override_handlers import OverrideHandlers
from lbmux.daemons.reloader import Reloader
from lbmux.daemons.status_handlers import parts
from lbmux.errors import LbmuxError, SetupError
from lbmux.health.agent_health_client import AgentHealthClient
from lbmux.health.load import Load
from lbmux.health.prober import Bind, Prober
from lbmux.plurals import counted
from lbmux.tables.live_flows import without_flows
from lbmux.tables.snapshot import Snapshot

if TYPE_CHECKING:
    from lbmux.daemons.manager_link import ManagerLink
    from lbmux.manager.node_messages import HealthLine, View

log = logging.getLogger(__name__)
HOSTS_FIRST_S = 1.0
"""Longest wait of a mux with new tables for its hosts' answers through the tunnel."""
NO_SERVICES = Config(services=())
SOURCE_CHECK_S = 0.25
FIRST_S = 3.0
"""Longest wait of a mux with new tables for the first result of every backend."""


class Health:
    """Takes probe results and writes changed states to the tables, several in one commit if they come together."""

    def __init__(
        self, tracker: BackendTracker, reloader: Reloader, snapshot: Callable[[], Snapshot], into_tunnel: Bind,
        token: Path | None = None, local: Iterable[Address] = (), hosts: HostProbes | None = None,
    ) -> None:  # fmt: skip
        """``token``: the file with the secret that agents and muxes share; ``local``: the mux's own addresses."""
        self._tracker, self._reloader = tracker, reloader
        self._prober = Prober(self._on_result, into_tunnel=into_tunnel, is_known=tracker.was_probed)
        self._agent_health_client = AgentHealthClient(self._on_result, token, local, self.on_load)
        self._auto = AutoWeights()
        self._hosts = hosts or HostProbes((), list)
        self._hosts.changed, tracker.describe_host = self._cut_off, self._hosts.describe
        self._changed, self._all_settled = asyncio.Event(), asyncio.Event()
        self._unsettled: set[BackendKey] = set()
        self._reported = set[Address]()
        """Hosts that were logged as silent."""
        self._drained = DrainWatch(reloader, snapshot, without_flows, self._agent_health_client.is_empty)
        self._pool: ManagerLink | None = None
        self._view: dict[BackendKey, HealthLine] = {}
        self._by_agents = frozenset[BackendKey]()
        self._asks_agents = True
        """Whether this mux asks agents itself: without a manager, or when none speaks for a primary."""

    def follow_pool(self, pool: "ManagerLink") -> None:
        """Take the states of backends that agents probe from the pool's manager."""
        self._pool, self._asks_agents = pool, False
        pool.follow_health(self._take_view)

    def configure(self, config: Config) -> None:
        self._tracker.configure(config)
        self._prober.configure(config)
        self._by_agents = frozenset(
            (service.name, backend.name)
            for service in config.services
            if service.health is not None and service.health.by == "agent"
            for backend in service.backends
        )
        self._record(self._view[key] for key in self._tracker.unprobed() & self._view.keys())
        self._ask_agents(config)
        self._follow_loads(config)

    def _ask_agents(self, config: Config) -> None:
        try:
            self._agent_health_client.configure(config if self._asks_agents else NO_SERVICES)
        except SetupError as error:
            log.error("backends that agents probe keep their states: %s", error)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self._prober, self._agent_health_client, self._hosts.running(), self._drained.running():
            if self._pool is None:
                self._agent_health_client.configure(self._reloader.wanted)  # a missing token fails the start
            self.configure(self._reloader.wanted)
            try:
                async with background_task(self._follow()), background_task(self.choose_source()):
                    yield
            finally:
                self._tracker.save()

    async def settled(self) -> None:
        """Wait until every backend is known to be up or down, FIRST_S at most; then write the states to the tables.

        A backend without a result by then gets no flows until it has one.
        """
        self._unsettled = self._tracker.unprobed()
        if not self._unsettled:
            self._all_settled.set()
        try:
            await self._hosts.settled(HOSTS_FIRST_S)
            await asyncio.wait_for(self._all_settled.wait(), FIRST_S)
        except TimeoutError:
            unheard = counted(len(self._unsettled), "backend")
            log.warning("%s without a health check result within %g s: no flows until there is one", unheard, FIRST_S)
        self._unsettled = set()
        await self._enforce()

    def handlers(self) -> dict[Kind, Handler]:
        overrides = OverrideHandlers(self._reloader, "mux", self._states, self._drained.forget)
        return {GetHealth: self.health, **overrides.handlers()}

    async def health(self, request: GetHealth) -> AsyncIterator[answers.Health]:
        """Stream the states in parts: one answer with 10,000 backends would delay packets."""
        for part in parts(await asyncio.to_thread(self._states)):
            states = map(self._with_silence, part)
            lines = [answers.HealthLine(**vars(one), drained=one.key in self._drained) for one in states]
            yield answers.Health(VERSION, "mux", lines)

    def _states(self) -> list[BackendHealth]:
        reloader = self._reloader
        lines = self._tracker.lines(reloader.config, reloader.wanted, reloader.overrides)
        return [BackendHealth(**line) for line in lines]

    def _with_silence(self, state: BackendHealth) -> BackendHealth:
        """Add to the reason how long the backend's agent has been silent: its last state may be old."""
        silent_s = self._agent_health_client.silent_s(state.key)
        if silent_s is None:
            return state
        silence = "no report from its agent yet"
        if not math.isinf(silent_s):
            silence = f"its agent has been silent for {silent_s:.0f} s"
        return replace(state, reason=f"{state.reason}; {silence}")

    def _take_view(self, view: "View") -> None:
        """Take what changed in the pool's health; states of backends that are not configured yet are kept."""
        self._decide_watermarks(view.kept)
        if view.weights is not None:
            self._weigh({(service, backend): weight for service, backend, weight in view.weights})
        changed = {line[:2]: line for line in view.lines}
        self._view.update(changed)
        self._record(changed.values())

    def _decide_watermarks(self, kept: tuple[str, ...] | None) -> None:
        """Take the primary's decision about services whose backends agents probe; None: decide here."""
        decided = None if kept is None else frozenset(kept)
        if decided != self._tracker.kept_by_pool:
            self._tracker.kept_by_pool = decided
            self._changed.set()

    def _record(self, lines: "Iterable[HealthLine]") -> None:
        for service, backend, is_up, reason in lines:
            if (service, backend) in self._by_agents:
                self._on_result((service, backend), is_up, f"its agent: {reason}")

    async def choose_source(self) -> None:
        """Ask agents while no manager speaks for a primary, and no longer once one does."""
        while self._pool is not None:
            if self._asks_agents == self._pool.has_primary:
                self._asks_agents = not self._asks_agents
                log.info("health of backends: %s", "from agents" if self._asks_agents else "from the manager")
                self._ask_agents(self._reloader.wanted)
                if self._asks_agents:
                    self._decide_watermarks(None)
                    self._auto = AutoWeights()  # begin with the pool's weights
                    self._follow_loads(self._reloader.wanted)
            await asyncio.sleep(SOURCE_CHECK_S)

    def _follow_loads(self, config: Config) -> None:
        admin_states = self._reloader.overrides.admin_states
        self._auto.configure(config.services, admin_states, self._tracker.weights, time.monotonic())

    def on_load(self, key: BackendKey, load: Load) -> None:
        if self._auto.report(key, load, time.monotonic()):
            self._weigh(self._auto.weights)

    def _weigh(self, weights: Mapping[BackendKey, int]) -> None:
        """Put other weights in force; those of backends that take no new flows stay known."""
        before, self._tracker.weights = self._tracker.weights, {**self._tracker.weights, **weights}
        for key, weight in weights.items():
            if before.get(key, int(AUTO_WEIGHT)) != weight:
                log.info("backend %s of service %s: weight %d, by its load", key[1], key[0], weight)
                self._changed.set()

    def _cut_off(self) -> None:
        """Log and enforce a change of the hosts that do not answer through the tunnel."""
        before, self._reported, self._tracker.cut_off = self._reported, self._hosts.reported, self._hosts.cut_off
        for host in sorted(self._reported - before, key=str):
            log.warning("host %s does not answer through the tunnel: its backends get no traffic", host)
        for host in sorted(before - self._reported, key=str):
            if description := self._hosts.describe(host):  # it is still configured
                log.info("%s: its backends get traffic", description)
        self._changed.set()

    def _on_result(self, key: BackendKey, healthy: bool, reason: str) -> None:
        if self._tracker.record(key, healthy, reason):
            if not (healthy and self._unsettled):  # most backends come up during the start
                log.info("backend %s of service %s is %s: %s", key[1], key[0], "up" if healthy else "down", reason)
            if not self._unsettled:  # during the start, one commit follows for all backends
                self._changed.set()
        if key in self._unsettled and self._tracker.was_probed(key):
            self._unsettled.discard(key)
            if not self._unsettled:
                self._all_settled.set()

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._enforce()

    async def _enforce(self) -> None:
        """Write the states to the tables, and store them for a mux that adopts the tables."""
        try:
            await self._reloader.update_states()
        except LbmuxError as error:
            log.error("changed backend states are not in force: %s", error)
        self._tracker.save()
