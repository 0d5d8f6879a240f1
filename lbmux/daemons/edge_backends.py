"""The backends of an edge: probes them, tracks their states, announces the VIPs that they serve."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection

from lbmux.addresses import Address
from lbmux.api.answers import BackendHealth
from lbmux.backends.effective import effective
from lbmux.backends.override_store import OverrideStore
from lbmux.backends.tracker import BackendTracker
from lbmux.bgp.announcer import Announcer
from lbmux.bgp.bgp_settings import Prefix, Route
from lbmux.config.models import BackendKey, Config
from lbmux.daemons.background_task import background_task
from lbmux.daemons.edge_vips import EdgeSnapshot, served_vips, services_of_host
from lbmux.health.prober import Prober
from lbmux.linux.sock_diag import Connections

log = logging.getLogger(__name__)


class EdgeBackends:
    """The reloader plans and commits it as it does tables; it holds the configuration of this host's backends."""

    def __init__(self, overrides: OverrideStore, announcer: Announcer, own: Collection[Address]) -> None:
        """``own``: the host's addresses."""
        self.config: Config | None = None
        self._tracker = BackendTracker()
        self._overrides, self._announcer, self._own = overrides, announcer, own
        self._prober = Prober(self._on_result)
        self._probed: set[BackendKey] = set()
        """Backends that were healthy at least once."""
        self._changed = asyncio.Event()
        self._is_withdrawn = False

    def plan(self, config: Config) -> Config:
        return services_of_host(config, self._own)

    def commit(self, config: Config) -> None:
        self.config = config

    def configure(self, config: Config) -> None:
        """Probe the backends of ``config``, the committed one, and no others."""
        self._tracker.configure(config)
        self._prober.configure(config)
        self._probed &= {(service.name, backend.name) for service in config.services for backend in service.backends}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Announce the served VIPs now and whenever a state changes."""
        self._changed.set()
        async with self._prober, background_task(self._follow()):
            yield

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self.announce()

    def served(self) -> frozenset[Prefix]:
        """The VIPs to announce. A VIP waits for its first successful probe, so that no client goes to a service that
        does not run yet."""
        assert self.config is not None
        healthy = self._probed - self._tracker.down
        return served_vips(self.config, healthy, self._overrides.overrides.admin_states)

    async def announce(self) -> None:
        """Announce what is served now, and withdraw the rest; nothing more after ``withdraw``."""
        if not self._is_withdrawn:
            await self._announcer.announce(frozenset(map(Route, self.served())))

    async def withdraw(self) -> None:
        """Withdraw every VIP for good."""
        self._is_withdrawn = True
        await self._announcer.withdraw()

    def snapshot(self, connections: Connections) -> EdgeSnapshot:
        assert self.config is not None
        services = effective(self.config, frozenset(), self._overrides.overrides.admin_states).services
        return EdgeSnapshot(services, connections)

    def states(self, file: Config) -> list[BackendHealth]:
        """Return the states of this host's backends; ``file``: the file's configuration."""
        assert self.config is not None
        lines = self._tracker.lines(services_of_host(file, self._own), self.config, self._overrides.overrides)
        return [BackendHealth(**line) for line in lines]

    def _on_result(self, key: BackendKey, healthy: bool, reason: str) -> None:
        changed = self._tracker.record(key, healthy, reason)
        if changed:
            log.info("backend %s of service %s is %s: %s", key[1], key[0], "up" if healthy else "down", reason)
        if healthy and key not in self._probed:
            self._probed.add(key)
            changed = True
        if changed:
            self._changed.set()
