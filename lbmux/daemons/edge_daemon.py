"""The edge as a process: no mux at all.  A host announces a VIP itself, as long as its own service there is healthy.

It forwards nothing: the VIP is an address of this host (on lo), and the kernel's sockets answer.  It relies on the
announcer for what the host's death withdraws, and on routers that spread a VIP's flows over several edges (ECMP): those
that have lost one may send a flow to another edge, which does not know it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from lbmux.addresses import Address
from lbmux.api.control_socket import ControlServer, default_path
from lbmux.api.refusals import OF_AN_EDGE, refuse_requests
from lbmux.backends.effective import effective
from lbmux.backends.override_store import OverrideStore
from lbmux.backends.overrides import AdminState
from lbmux.backends.tracker import BackendTracker
from lbmux.bgp.announcer import Announcer
from lbmux.bgp.bgp_settings import Bgp, Prefix, Route
from lbmux.config.health_models import Health
from lbmux.config.loader import load
from lbmux.config.models import BackendKey, Config, Service
from lbmux.daemons.announcement import is_up, speaker_setup
from lbmux.daemons.config_listeners import on_config
from lbmux.daemons.drain_watch import DrainWatch
from lbmux.daemons.override_handlers import OverrideHandlers
from lbmux.daemons.process import notify, ready, stop_event
from lbmux.daemons.reloader import Reloader
from lbmux.daemons.status_handlers import FORMAT
from lbmux.errors import SetupError
from lbmux.health.prober import Prober
from lbmux.linux.next_hops import addresses, first_addresses
from lbmux.linux.sock_diag import Connections
from lbmux.plurals import counted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What is local to one edge; the configuration file is shared by all."""

    config: Path
    interface: str
    bgp: Bgp
    bgp_speaker: str = "exabgp"
    drain_s: float = 1.0
    addresses: tuple[Address, ...] = ()
    control: Path | None = None


def of_host(config: Config, own: Collection[Address]) -> Config:
    """The services that have backends on this host, with those alone, probed by the host itself.

    Without a watermark: it speaks of a share of all backends, and of the others an edge knows nothing.  Nor is there a
    mux whose tunnel could be probed.
    """
    services = []
    for service in config.services:
        if backends := tuple(backend for backend in service.backends if backend.dip in own):
            health = service.health and _own_probes(service.health)
            services.append(service.model_copy(update={"backends": backends, "health": health}))
    return config.model_copy(update={"services": tuple(services)})


def _own_probes(health: Health) -> Health:
    """A port that was named for the tunnel is the VIP's, and not where the backend listens."""
    straight = {"through": "direct", "port": None} if health.through == "tunnel" else {}
    return health.model_copy(update={"watermark": None, "by": "mux", **straight})


def served(
    config: Config, healthy: Collection[BackendKey], tracker: Mapping[BackendKey, AdminState]
) -> frozenset[Prefix]:
    """The VIPs all of whose services here have a backend that is healthy and is to serve: a router looks at no port."""
    found: dict[Prefix, bool] = {}
    for service in config.services:
        keys = [(service.name, backend.name) for backend in service.backends if backend.weight]
        serves = any((key in healthy or service.health is None) and key not in tracker for key in keys)
        prefix = ip_network(service.vip)
        found[prefix] = found.get(prefix, True) and serves
    return frozenset(prefix for prefix, serves in found.items() if serves)


@dataclass(frozen=True)
class Here:
    """What is in force at an edge, and drains."""

    services: tuple[Service, ...]
    connections: Connections

    @property
    def rows(self) -> set[BackendKey]:
        return {(service.name, backend.name) for service in self.services for backend in service.backends}


def without_connections(here: Here, asked: Collection[BackendKey]) -> set[BackendKey]:
    """As the kernel's sockets say, which know of TCP alone: of UDP there is nothing to wait for."""
    found = set[BackendKey]()
    for service in here.services:
        if keys := {(service.name, backend.name) for backend in service.backends} & set(asked):
            with contextlib.suppress(OSError):  # a kernel that does not tell: then nobody is said to be drained
                if service.protocol == "udp" or not here.connections.any(service.vip, service.ports):
                    found |= keys
    return found


class Edge:
    """What an edge knows, and announces of it.  A configuration is in force when it is committed, as tables are."""

    def __init__(
        self, tracker: BackendTracker, book: OverrideStore, announcer: Announcer, own: Collection[Address]
    ) -> None:
        self.config: Config | None = None
        self._tracker, self._book, self._announcer, self._own = tracker, book, announcer, own
        self._prober = Prober(self._heard)
        self._heard_of: set[BackendKey] = set()
        self._changed = asyncio.Event()

    def plan(self, config: Config) -> Config:
        return of_host(config, self._own)

    def commit(self, config: Config) -> None:
        self.config = config
        self._tracker.configure(config)
        self._prober.configure(config)
        self._heard_of &= {(service.name, backend.name) for service in config.services for backend in service.backends}
        self._changed.set()

    async def follow(self) -> None:
        """Announce what is served, whenever that may have changed."""
        async with self._prober:
            while True:
                await self._changed.wait()
                self._changed.clear()
                await self.announce()

    def served(self) -> frozenset[Prefix]:
        """Nothing of which no probe has told yet: a VIP whose service does not run yet draws no client."""
        assert self.config is not None
        return served(self.config, self._heard_of - self._tracker.down, self._book.overrides.admin_states)

    async def announce(self) -> None:
        """A configuration or an order has come into force."""
        await self._announcer.announce(frozenset(map(Route, self.served())))

    def here(self, connections: Connections) -> Here:
        assert self.config is not None
        return Here(effective(self.config, frozenset(), self._book.overrides.admin_states).services, connections)

    def lines(self, file: Config) -> list[dict[str, Any]]:
        """The states of the backends here."""
        assert self.config is not None
        return self._tracker.lines(of_host(file, self._own), self.config, self._book.overrides)

    def _heard(self, key: BackendKey, healthy: bool, reason: str) -> None:
        changed = self._tracker.record(key, healthy, reason)
        if changed:
            log.info("backend %s of service %s is %s: %s", key[1], key[0], "up" if healthy else "down", reason)
        if healthy and key not in self._heard_of:
            self._heard_of.add(key)
            changed = True
        if changed:
            self._changed.set()


async def serve(options: Options) -> None:
    """Run until SIGTERM: withdrawn then, and ended after the time to drain."""
    config = await asyncio.to_thread(load, options.config)
    local = await asyncio.to_thread(first_addresses, options.interface)
    own: Collection[Address] = options.addresses or await asyncio.to_thread(addresses)
    control = options.control or default_path("edge")
    if not of_host(config, own).services:
        hint = "name the one that it has there by --address, or add it to the file"
        raise SetupError(str(options.config), "no backend has an address of this host as its `dip`", hint)
    speaker = speaker_setup(options.bgp, options.bgp_speaker, local, control)
    assert speaker is not None, "the command has asked for a peer"
    announcer = speaker.announcer(lambda: is_up(options.interface))
    async with contextlib.AsyncExitStack() as stack:
        book = OverrideStore(control.with_suffix(".overrides"), config)
        edge = Edge(BackendTracker(), book, announcer, own)
        reloader = Reloader(options.config, edge, config, book)
        reloader.listeners = [on_config(lambda _: edge.announce())]
        connections = stack.enter_context(Connections())
        drained = DrainWatch(reloader, lambda: edge.here(connections), without_connections)

        def lines() -> list[dict[str, Any]]:
            return edge.lines(reloader.config)

        async def health() -> dict[str, Any]:
            said = [one | {"drained": (one["service"], one["backend"]) in drained} for one in lines()]
            return {"version": FORMAT, "program": "edge", "health": said}

        handlers: dict[str, Any] = {**refuse_requests(OF_AN_EDGE), **reloader.handlers(), **announcer.handlers()}
        handlers |= {"health": health, **OverrideHandlers(reloader, "edge", lines, drained.forget).handlers()}
        await stack.enter_async_context(ControlServer(control, handlers))
        await stack.enter_async_context(announcer)
        stop = stop_event(on_reload=reloader.soon)
        edge.commit(edge.plan(reloader.wanted))
        tasks = [asyncio.create_task(edge.follow()), asyncio.create_task(drained.watch())]
        log.info("edge %s: %s", " and ".join(map(str, local)), counted(len(config.services), "service"))
        ready()
        await stop.wait()
        notify("STOPPING=1")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await announcer.withdraw()
        await asyncio.sleep(options.drain_s)
    log.info("stopped; goodbye")
