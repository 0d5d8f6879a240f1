"""The agent daemon: gives tunnelled packets to its host's backends and their replies to the clients.

With the ``tun`` driver every packet passes through this process; with ``xdp`` only what the kernel's programs punt.
"""

import asyncio
import dataclasses
import functools
import logging
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbmux.addresses import Address
from lbmux.api.control_server import Handler, Kind
from lbmux.api.refusals import OF_AN_AGENT
from lbmux.api.requests import CountConnections, GetRoundTrips, Trace
from lbmux.backends.overrides import with_overrides
from lbmux.daemons.agent_backends import AgentBackends
from lbmux.daemons.agent_health import AgentHealth, own_backends
from lbmux.daemons.agent_path import AgentPath, PuntPath, TunPath
from lbmux.daemons.config_listeners import Listener, on_config
from lbmux.daemons.drivers import DriverChoice, alone, choose, start, with_fallback
from lbmux.daemons.egress import Egress
from lbmux.daemons.interface_watch import InterfaceWatch
from lbmux.daemons.metrics_endpoint import serving
from lbmux.daemons.reloader import Reloader
from lbmux.daemons.reply_hold import release_if_unused
from lbmux.daemons.round_trip_handler import RoundTripHandler
from lbmux.daemons.skeleton import Daemon, DaemonOptions, run_daemon
from lbmux.daemons.socket_sync_task import SocketSyncTask
from lbmux.daemons.status_handlers import StatusHandlers
from lbmux.daemons.traffic_sampler import TrafficSampler
from lbmux.daemons.tunnel_sockets import tunnel_sockets
from lbmux.linux.host_sockets import HostSockets
from lbmux.linux.interface_addresses import addresses
from lbmux.linux.offloads import without_super_frames
from lbmux.tables.agent_tables import AgentTables, sizes_for
from lbmux.tables.migration import copy_keys
from lbmux.tables.snapshot import Snapshot
from lbmux.tables.socket_sync import SocketSync
from lbmux.targets.bpf.syscall import Attach
from lbmux.targets.native import Worker
from lbmux.tracing.trace_hub import TraceHub

log = logging.getLogger(__name__)

PROGRAMS = {Attach.XDP: "agent_xdp", Attach.TCX_EGRESS: "agent_tc"}
EDGE_PROGRAMS = {Attach.XDP: "edge_agent_xdp", Attach.TCX_EGRESS: "agent_tc"}


@dataclass(frozen=True, kw_only=True)
class Options(DaemonOptions):
    """Settings of one agent; ``muxes``: besides those of the configuration."""

    mode: str = "nat"
    muxes: tuple[Address, ...] = ()
    driver: str = "auto"
    detach_on_exit: bool = False
    metrics: str | None = None
    health_token: Path | None = None
    behind_mux: bool = False
    """Whether a mux runs on the same interface, in the same process: this is an edge."""


async def serve(options: Options) -> None:
    """Run until SIGTERM. Remove everything that was set up, including leftovers of a killed run."""

    async def with_driver(driver: str) -> None:
        await run_daemon(AgentDaemon, dataclasses.replace(options, driver=driver))

    await with_fallback(options.driver, "tun", options.interface, with_driver)


def own_addresses() -> list[Address]:
    """Return the addresses at which muxes may reach this host, so not the loopback ones, which every machine has."""
    return [address for address in addresses() if not address.is_loopback]


class AgentDaemon(Daemon[Options]):
    """The parts of an agent."""

    role, refusals, serves_host = "agent", OF_AN_AGENT, True

    async def build(self) -> None:
        await self._open_driver()
        self._fill_tables()
        await self._build_packet_path()
        self._build_health()
        self._build_handlers()

    async def _open_driver(self) -> None:
        options, enter, tunnel = self.options, self.stack.enter_context, self.config.tunnel
        self.own: Iterable[Address] = options.addresses or await asyncio.to_thread(own_addresses)
        if options.driver != "tun":  # only one device can have this name
            enter(alone("agent", options.interface))
        enter(tunnel_sockets(tunnel.gue_port, tunnel.geneve_port))
        self.offloads = enter(without_super_frames(options.interface))
        store = self.control.with_suffix(".tables")
        programs, mode = (EDGE_PROGRAMS, "behind_mux") if options.behind_mux else (PROGRAMS, "native")
        choice = DriverChoice(
            "agent", options.interface, options.driver, "tun", programs, options.detach_on_exit, mode, store
        )
        self.driver = enter(choose(choice, functools.partial(sizes_for, self.config)))

    def _fill_tables(self) -> None:
        driver, options = self.driver, self.options
        if driver.previous is not None:
            copy_keys(driver.previous, driver.tables)
        self.agent = AgentTables(driver.tables, self.own, options.muxes, options.mode)
        self.agent.commit(self.agent.plan(with_overrides(self.config, self.overrides.overrides)))

    async def _build_packet_path(self) -> None:
        options, driver, stack, interface = self.options, self.driver, self.stack, self.options.interface
        socket_sync = SocketSync(self.agent, Worker(driver.tables, driver.worker))
        socket_sync.warm_up()
        self.sockets = sockets = stack.enter_context(HostSockets(self.agent.own))
        self.path: AgentPath = PuntPath(interface, self.agent, socket_sync, sockets, stack)
        if driver.kernel is None:
            detach = options.detach_on_exit
            self.path = TunPath(interface, self.agent, socket_sync, sockets, stack, detach_on_exit=detach)
        await self.path.open(driver.worker)
        self.about: dict[str, Any] = {"interface": options.interface, "mode": options.mode}
        slow = self.path.slow
        self.socket_sync_task = SocketSyncTask(self.agent, socket_sync, sockets, slow.counts, self._sees_others)

    def _sees_others(self) -> None:
        """Look up unknown connections to DIPs in other namespaces too."""
        self.path.slow.configure()
        self.about["sockets_elsewhere"] = sorted(map(str, self.agent.elsewhere))

    def _build_health(self) -> None:
        self.health = AgentHealth(self.options.health_token)
        self.health.last_pass = lambda: self.socket_sync_task.last_pass
        if self.link is not None:
            self.health.changed = self.link.report_health(self.health.lines, lambda: self.health.loads)
        self.reloader = Reloader(self.options.config, self.agent, self.config, self.overrides)
        self.backends = AgentBackends(self.reloader, self.snapshot, self.health)

    def _build_handlers(self) -> None:
        options, path = self.options, self.path
        self.about["addresses"] = sorted(map(str, self.agent.own))
        read = path.loop.inbound
        self.interface_watch = InterfaceWatch(path.ring, self.driver, self.about, read, others=[path.probe_ring])
        self.status = StatusHandlers(
            self.snapshot, self.driver, options.config, self.about, path.ring, slow=path.slow.counters
        )
        self.trace_hub = TraceHub(self.snapshot, path.loop.watch, self.driver)
        self.sampler = TrafficSampler("agent", self.snapshot, lambda: self.driver.kernel is not None)

    def on_config(self) -> list[Listener]:
        return [
            on_config(lambda running: self.path.configure(running.effective)),
            on_config(lambda _: self.status.loaded()),
            on_config(lambda _: self._configure_health()),
        ]

    async def start(self) -> None:
        enter, driver = self.stack.enter_async_context, self.driver
        await self.socket_sync_task.run_once()
        self.path.start()
        await self.path.configure(self.reloader.running.effective)
        if driver.kernel is not None:
            await enter(Egress(driver.kernel, self.about).running())
        start(driver, is_agent=True)
        await enter(self.interface_watch.running())
        await self.socket_sync_task.run_once()  # for connections that opened before a program saw their first packets
        await enter(self.socket_sync_task.running())
        if driver.kernel is not None:
            await asyncio.to_thread(release_if_unused)
        if driver.stays:  # super-frames must stay off while the kernel forwards without this process
            self.offloads.clear()
        await enter(self.health.running())
        await self._configure_health()
        await enter(self.backends.running())
        await enter(self.sampler.running())
        await self.listen()
        where = f"{self.options.interface} ({driver.name})"
        log.info("agent on %s, mode %s: %d backends of this host", where, self.options.mode, len(self.agent.served))

    def handlers(self) -> dict[Kind, Handler]:
        handlers = {**self.status.handlers(), **self.backends.handlers(), Trace: self.trace_hub.watch}
        own: dict[Kind, Handler] = {
            CountConnections: self.socket_sync_task.count,
            GetRoundTrips: RoundTripHandler(self.agent, self.sockets).answer,
        }
        return {**handlers, **self.sampler.handlers(), **own}

    def metrics(self) -> AbstractAsyncContextManager[object]:
        return serving(self.options.metrics, self.status)

    def snapshot(self) -> Snapshot:
        return Snapshot.of_agent(self.agent)

    async def _configure_health(self) -> None:
        config, options = self.reloader.running.effective, self.options
        probed = own_backends(config, self.agent.served, options.mode == "local")
        await self.health.configure(probed, {*config.muxes, *options.muxes})
