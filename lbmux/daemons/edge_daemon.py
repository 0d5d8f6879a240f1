"""The edge daemon: a host announces a VIP itself, without a mux, while its own service is healthy.

It forwards nothing: the VIP is an address of this host (on lo), and the kernel's sockets answer.  The routers withdraw
the VIP when the host dies, and spread a VIP's flows over several edges (ECMP).  When one edge goes they may move flows
of the others too; an edge does not know such a flow and resets it.
"""

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass

from lbmux.addresses import Address
from lbmux.api.answers import BackendHealth, ConnectionCounts, Health, HealthLine
from lbmux.api.control_server import Handler, Kind
from lbmux.api.protocol import VERSION
from lbmux.api.refusals import OF_AN_EDGE
from lbmux.api.requests import CountConnections, GetHealth
from lbmux.bgp.bgp_settings import Bgp
from lbmux.daemons.announcement import bgp_handlers, is_up, speaker_setup
from lbmux.daemons.config_listeners import Listener, on_config
from lbmux.daemons.drain_watch import DrainWatch
from lbmux.daemons.edge_backends import EdgeBackends
from lbmux.daemons.edge_vips import EdgeSnapshot, services_of_host, without_connections
from lbmux.daemons.override_handlers import OverrideHandlers
from lbmux.daemons.reloader import Reloader
from lbmux.daemons.skeleton import Daemon, DaemonOptions, run_daemon
from lbmux.errors import LbmuxError, SetupError
from lbmux.linux.interface_addresses import addresses, first_addresses
from lbmux.linux.sock_diag import Connections
from lbmux.plurals import counted
from lbmux.tables.vip_connections import connections_on_vips

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Options(DaemonOptions):
    """Settings of one edge."""

    bgp: Bgp
    bgp_speaker: str = "exabgp"
    drain_s: float = 1.0


async def serve(options: Options) -> None:
    """Run until SIGTERM; then withdraw, wait for the drain time, and stop."""
    await run_daemon(EdgeDaemon, options)


class EdgeDaemon(Daemon[Options]):
    """The parts of an edge."""

    role, refusals = "edge", OF_AN_EDGE

    async def build(self) -> None:
        options = self.options
        self.local = await asyncio.to_thread(first_addresses, options.interface)
        own: Collection[Address] = options.addresses or await asyncio.to_thread(addresses)
        if not services_of_host(self.config, own).services:
            hint = "name the one that it has there by --address, or add it to the file"
            raise SetupError(str(options.config), "no backend has an address of this host as its `dip`", hint)
        speaker = speaker_setup(options.bgp, options.bgp_speaker, self.local, self.control)
        assert speaker is not None, "the command requires a peer"
        self.announcer = speaker.announcer(lambda: is_up(options.interface))
        if self.link is not None:
            self.link.announce_by(self.announcer)
        self.backends = EdgeBackends(self.overrides, self.announcer, own)
        self.reloader = Reloader(options.config, self.backends, self.config, self.overrides)
        self.backends.commit(self.backends.plan(self.reloader.wanted))
        self.connections = self.stack.enter_context(Connections())
        self.drain_watch = DrainWatch(self.reloader, self._snapshot, without_connections)

    def on_config(self) -> list[Listener]:
        return [
            on_config(lambda running: self.backends.configure(running.effective)),
            on_config(lambda _: self.backends.announce()),
        ]

    async def start(self) -> None:
        await self.listen()
        await self.stack.enter_async_context(self.announcer)
        await self.stack.enter_async_context(self.backends.running())
        self.backends.configure(self.reloader.running.effective)
        await self.stack.enter_async_context(self.drain_watch.running())
        services = counted(len(self.config.services), "service")
        log.info("edge %s: %s", " and ".join(map(str, self.local)), services)

    async def stop(self) -> None:
        await self.backends.withdraw()
        await asyncio.sleep(self.options.drain_s)

    def handlers(self) -> dict[Kind, Handler]:
        overrides = OverrideHandlers(self.reloader, "edge", self._states, self.drain_watch.forget)
        own: dict[Kind, Handler] = {GetHealth: self.health, CountConnections: self.count}
        if self.link is not None:
            own |= self.link.planning(self.reloader, lambda _: {})  # it has no slots
        return {**bgp_handlers(self.announcer, lambda: self.reloader.wanted), **own, **overrides.handlers()}

    async def count(self, request: CountConnections) -> ConnectionCounts:
        """Answer with the live connections of each backend of this host."""
        services = (self.backends.config or self.config).services
        served = [(service, backend) for service in services for backend in service.backends]

        def numbers() -> list[tuple[str, str, int]]:
            with Connections() as connections:
                counts = connections_on_vips(served, connections.all())
            return [(*key, number) for key, number in counts.items()]

        try:
            return ConnectionCounts(VERSION, "edge", await asyncio.to_thread(numbers))
        except OSError as error:
            raise LbmuxError(f"cannot list the sockets of this host: {error}") from error

    async def health(self, request: GetHealth) -> Health:
        """The states of this host's backends."""
        lines = [HealthLine(**vars(state), drained=state.key in self.drain_watch) for state in self._states()]
        return Health(VERSION, "edge", lines)

    def _states(self) -> list[BackendHealth]:
        return self.backends.states(self.reloader.config)

    def _snapshot(self) -> EdgeSnapshot:
        return self.backends.snapshot(self.connections)
