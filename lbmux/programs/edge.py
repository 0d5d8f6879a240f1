"""The edge as a process: no mux at all.  A host announces a VIP itself, as long as its own service there is healthy.

It forwards nothing: the VIP is an address of this host (on lo), and the kernel's sockets answer.  It relies on the
announcer for what the host's death withdraws, and on routers that spread a VIP's flows over several edges (ECMP): those
that have lost one may send a flow to another edge, which does not know it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from lbmux.addresses import Address
from lbmux.control.announcer.announcer import Announcer
from lbmux.control.announcer.settings import Bgp, Prefix
from lbmux.control.config import Config
from lbmux.control.config_file import load
from lbmux.control.config_health import Health
from lbmux.control.control_socket import ControlServer, default_path
from lbmux.control.health.effective import Key, Order
from lbmux.control.health.lives import Lives
from lbmux.control.health.prober import Prober
from lbmux.control.neighbours import addresses, first_addresses
from lbmux.errors import SetupError
from lbmux.programs.announcing import announcing, is_up
from lbmux.programs.daemon import notify, ready, stop_event
from lbmux.programs.reload import Reloader

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


def served(config: Config, healthy: Collection[Key], orders: dict[Key, Order]) -> frozenset[Prefix]:
    """The VIPs all of whose services here have a backend that is healthy and is to serve: a router looks at no port."""
    found: dict[Prefix, bool] = {}
    for service in config.services:
        keys = [(service.name, backend.name) for backend in service.backends if backend.weight]
        serves = any((key in healthy or service.health is None) and key not in orders for key in keys)
        prefix = ip_network(service.vip)
        found[prefix] = found.get(prefix, True) and serves
    return frozenset(prefix for prefix, serves in found.items() if serves)


class Edge:
    """What an edge knows, and announces of it.  A configuration is in force when it is committed, as tables are."""

    def __init__(self, lives: Lives, announcer: Announcer, own: Collection[Address]) -> None:
        self.config: Config | None = None
        self._lives, self._announcer, self._own = lives, announcer, own
        self._prober = Prober(self._heard)
        self._heard_of: set[Key] = set()
        self._changed = asyncio.Event()

    def plan(self, config: Config) -> Config:
        return of_host(config, self._own)

    def commit(self, config: Config) -> None:
        self.config = config
        self._lives.configure(config)
        self._prober.configure(config)
        self._heard_of &= {(service.name, backend.name) for service in config.services for backend in service.backends}
        self._changed.set()

    async def follow(self) -> None:
        """Announce what is served, whenever that may have changed."""
        async with self._prober:
            while True:
                await self._changed.wait()
                self._changed.clear()
                await self._announcer.announce(self.served())

    def served(self) -> frozenset[Prefix]:
        """Nothing of which no probe has told yet: a VIP whose service does not run yet draws no client."""
        assert self.config is not None
        return served(self.config, self._heard_of - self._lives.down, self._lives.orders)

    async def health(self) -> dict[str, Any]:
        assert self.config is not None
        # Whether flows are left only the kernel's sockets know.
        return {"health": [line | {"drained": False} for line in self._lives.lines(self.config)]}

    async def order(self, backend: str, order: Order | None = None, service: str | None = None) -> dict[str, Any]:
        """Drain or disable a backend here, or (None) have it serve; answered when routers are told."""
        assert self.config is not None
        keys = self._lives.order(self.config, order, backend, service)
        await self._announcer.announce(self.served())
        lines = self._lives.lines(self.config)
        return {"health": [line for line in lines if (line["service"], line["backend"]) in keys]}

    def _heard(self, key: Key, healthy: bool, reason: str) -> None:
        changed = self._lives.heard(key, healthy, reason)
        if changed:
            log.info("backend %s of service %s is %s: %s", key[1], key[0], "up" if healthy else "down", reason)
        if healthy and key not in self._heard_of:
            self._heard_of.add(key)
            changed = True
        if changed:
            self._changed.set()


async def nothing_more() -> None:
    """After a commit: the edge follows by itself."""


async def serve(options: Options) -> None:
    """Run until SIGTERM: withdrawn then, and ended after the time to drain."""
    config = await asyncio.to_thread(load, options.config)
    local = await asyncio.to_thread(first_addresses, options.interface)
    own: Collection[Address] = options.addresses or await asyncio.to_thread(addresses)
    control = options.control or default_path("edge")
    if not of_host(config, own).services:
        raise SetupError(str(options.config), "no backend has an address of this host as its `dip`: see --address")
    announcer = announcing(options.bgp, options.bgp_speaker, local, control, lambda: is_up(options.interface))
    assert announcer is not None, "the command has asked for a peer"
    async with contextlib.AsyncExitStack() as stack:
        edge = Edge(Lives(control.with_suffix(".orders")), announcer, own)
        reloader = Reloader(options.config, edge, nothing_more, config)
        handlers: dict[str, Any] = {"reload": reloader.reload, **announcer.handlers()}
        handlers |= {"health": edge.health, "order": edge.order}
        await stack.enter_async_context(ControlServer(control, handlers))
        await stack.enter_async_context(announcer)
        stop = stop_event(on_reload=reloader.soon)
        edge.commit(edge.plan(config))
        following = asyncio.create_task(edge.follow())
        log.info("edge %s: %d services", " and ".join(map(str, local)), len(config.services))
        ready()
        await stop.wait()
        notify("STOPPING=1")
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await announcer.withdraw()
        await asyncio.sleep(options.drain_s)
    log.info("stopped; goodbye")
