"""The mux daemon: forwards packets for VIPs to backends; its packet loop, probes and requests share one event loop."""

import asyncio
import dataclasses
import functools
import logging
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from lbmux.api.control_server import Handler, Kind
from lbmux.api.refusals import OF_A_MUX
from lbmux.api.requests import Trace
from lbmux.backends.overrides import with_overrides
from lbmux.backends.tracker import BackendTracker
from lbmux.bgp.announcer import Announcer
from lbmux.bgp.bgp_settings import Bgp
from lbmux.config.models import Config
from lbmux.daemons.announcement import SpeakerSetup, bgp_handlers, speaker_setup
from lbmux.daemons.challenge_ack import ChallengeAckProbe
from lbmux.daemons.config_listeners import Listener, RunningConfig, on_commit, on_config
from lbmux.daemons.daemon_host_probes import HostProbes
from lbmux.daemons.drivers import DriverChoice, alone, choose, start, with_fallback
from lbmux.daemons.forwarding_check import ForwardingCheck
from lbmux.daemons.host_forwarding import HostForwarding
from lbmux.daemons.interface_watch import InterfaceWatch
from lbmux.daemons.metrics_endpoint import serving
from lbmux.daemons.mux_health import Health
from lbmux.daemons.mux_slow_path_io import Sender, SlowFrames, refreshing
from lbmux.daemons.next_hop_updates import NextHopUpdates
from lbmux.daemons.overload_watch import OverloadWatch
from lbmux.daemons.packet_loop import PacketLoop
from lbmux.daemons.reloader import Reloader
from lbmux.daemons.skeleton import Daemon, DaemonOptions, run_daemon
from lbmux.daemons.slot_sweep import SlotSweep
from lbmux.daemons.status_handlers import StatusHandlers
from lbmux.daemons.traffic_sampler import TrafficSampler
from lbmux.daemons.tunnel_probes import TunnelProbes
from lbmux.daemons.vip_routes import VipRoutes
from lbmux.daemons.wait_quiet import wait_quiet
from lbmux.datapath.verdicts import Verdict
from lbmux.errors import LbmuxError
from lbmux.frames.packet_ring import PacketRing
from lbmux.linux.interface_addresses import first_addresses
from lbmux.linux.offloads import device_driver, without_super_frames
from lbmux.plurals import counted
from lbmux.tables.migration import copy_keys
from lbmux.tables.mux_tables import MuxTables, sizes_for
from lbmux.tables.snapshot import Snapshot
from lbmux.targets.bpf.syscall import Attach
from lbmux.targets.native import Worker
from lbmux.tracing.trace_hub import TraceHub

log = logging.getLogger(__name__)

PROGRAMS = {Attach.XDP: "mux_xdp"}
EDGE_PROGRAMS = {Attach.XDP: "edge_mux_xdp"}


@dataclass(frozen=True, kw_only=True)
class Options(DaemonOptions):
    """Settings of one mux."""

    driver: str = "auto"
    detach_on_exit: bool = False
    xdp_mode: str = "auto"
    bgp: Bgp | None = None
    bgp_speaker: str = "exabgp"
    drain_s: float = 30.0
    metrics: str | None = None
    health_token: Path | None = None


async def serve(options: Options) -> None:
    """Run until SIGTERM; then withdraw, forward the remaining packets, and stop.

    A second SIGTERM, or SIGINT, ends the mux at once.
    """

    async def with_driver(driver: str) -> None:
        await run_daemon(MuxDaemon, dataclasses.replace(options, driver=driver))

    await with_fallback(options.driver, "packet", options.interface, with_driver)


class MuxDaemon(Daemon[Options]):
    """The parts of a mux."""

    role: ClassVar[Literal["mux", "edge"]] = "mux"
    refusals = OF_A_MUX
    has_vips = False
    """Whether the VIPs are addresses of this host, as they are of an edge."""

    async def build(self) -> None:
        options = self.options
        self.local = options.addresses or await asyncio.to_thread(first_addresses, options.interface)
        self.stack.enter_context(alone("mux", options.interface))
        speaker = speaker_setup(options.bgp, options.bgp_speaker, self.local, self.control)
        self._open_driver()
        self._fill_tables()
        self._build_packet_path()
        self._build_announcer(speaker)
        self._build_health()
        self._build_handlers()

    def _open_driver(self) -> None:
        options, stack = self.options, self.stack
        self.ring = stack.enter_context(PacketRing(options.interface))
        self.offloads = stack.enter_context(without_super_frames(options.interface))
        programs = EDGE_PROGRAMS if self.has_vips else PROGRAMS
        choice = DriverChoice(
            "mux", options.interface, options.driver, "packet", programs, options.detach_on_exit, xdp_mode(options),
            has_agent=self.has_vips,
        )  # fmt: skip
        self.driver = stack.enter_context(choose(choice, functools.partial(sizes_for, self.config)))
        self.has_flows = self.driver.adopted or self.driver.previous is not None

    def _fill_tables(self) -> None:
        """Commit the file's configuration, without backends that were down in the tables that are adopted."""
        driver = self.driver
        self.tracker = BackendTracker(self.control.with_suffix(".found"))
        if self.has_flows:
            self.tracker.restore()
        if driver.previous is not None:
            copy_keys(driver.previous, driver.tables)
        overrides = self.overrides.overrides
        self.mux = MuxTables(driver.tables, *self.local)
        self.mux.commit(self.mux.plan(self.tracker.effective(with_overrides(self.config, overrides), overrides)))
        if driver.adopted:
            flows = counted(int(np.count_nonzero(driver.tables.flows["state"])), "flow")
            log.info("adopted the tables in force: %s", flows)

    def _build_packet_path(self) -> None:
        options, driver, stack = self.options, self.driver, self.stack
        self.sender = sender = stack.enter_context(Sender(options.interface))
        self.slow = SlowFrames(self.mux, Worker(driver.tables, driver.worker), sender)
        hidden = HostForwarding(options.interface, driver.kernel is not None, has_vips=self.has_vips)
        self.host_forwarding = stack.enter_context(hidden)
        self.challenge_ack_probe = ChallengeAckProbe(self.snapshot, sender.send)
        self.loop = PacketLoop(self.ring, Worker(driver.tables, driver.worker), self.slow.handle)
        self.slow.yield_to(self.loop.is_behind)
        self.loop.warm_up()
        self.tunnel_probes = TunnelProbes(self.local, self.ring.send)
        self.host_probes = HostProbes(self.local, sender.send)
        tables = (self.mux, self.tunnel_probes.tables, self.host_probes.tables)
        self.next_hops = NextHopUpdates(tables, self.loop)

    def _build_announcer(self, speaker: SpeakerSetup | None) -> None:
        kernel = self.driver.kernel
        self.announcer: Announcer | None = None
        if speaker is not None:
            self.announcer = speaker.announcer(
                ForwardingCheck(self.ring, self.driver, insists=self.options.driver == "xdp"),
                alive=self.loop.made_progress,
                forwards=lambda: kernel is not None and kernel.is_attached(),
                overloaded=self._is_overloaded,
            )
            if self.link is not None:
                self.link.announce_by(self.announcer)
        self.routes = VipRoutes(self.announcer, self.mux)

    def _build_health(self) -> None:
        self.reloader = Reloader(
            self.options.config,
            self.mux,
            self.config,
            self.overrides,
            self.tracker.effective,
            self.routes.withdraw_removed,
        )
        self.slot_sweep = SlotSweep(self.mux, self.reloader)
        self.health = Health(
            self.tracker,
            self.reloader,
            self.snapshot,
            self.tunnel_probes.bind,
            self.options.health_token,
            self.local,
            self.host_probes,
        )
        if self.link is not None:
            self.health.follow_pool(self.link)

    def _build_handlers(self) -> None:
        options, loop = self.options, self.loop
        self.about: dict[str, Any] = {"interface": options.interface, "addresses": [*map(str, self.local)]}
        self.status = StatusHandlers(
            self.snapshot,
            self.driver,
            options.config,
            self.about,
            self.ring,
            loop.pending_neighbours,
            self.slow.counters,
        )
        self.status.host_forwarding = self.host_forwarding.describe
        self.overload_watch = OverloadWatch(options.interface, self.driver, loop, self.mux, self.routes)
        self.status.overload = self.overload_watch.describe
        if self.link is not None:
            self.overload_watch.isolation.report = self.link.report_black_hole
        self.host_probes.is_overloaded = self._is_overloaded
        self.trace_hub = TraceHub(self.snapshot, loop.watch, self.driver)
        self.sampler = TrafficSampler(self.role, self.snapshot, lambda: self.driver.kernel is not None)
        self.interface_watch = InterfaceWatch(self.ring, self.driver, self.about, loop.read, self._hide_vips)

    def on_config(self) -> list[Listener]:
        return [
            on_commit(lambda _: self.slow.configure()),  # before any packet meets the new tables
            on_config(lambda _: self.status.loaded()),
            on_config(lambda running: self.host_forwarding.configure(running.effective)),
            on_config(lambda running: self.overload_watch.configure(running.wanted)),
            on_commit(lambda running: self.challenge_ack_probe.on_commit(running.wanted.slowpath)),
            on_config(self._configure_probes),
            on_commit(lambda _: self.next_hops.watch()),
            on_config(lambda running: self.health.configure(self.probed(running.wanted))),
            on_commit(lambda running: self.routes.announce(running.effective)),
        ]

    async def start(self) -> None:
        enter, wanted = self.stack.enter_async_context, self.reloader.wanted
        await enter(self.tunnel_probes.running())
        await self.tunnel_probes.configure(self.probed(wanted))
        await self.host_probes.configure(wanted)
        await enter(self.next_hops.running())
        self.stack.enter_context(refreshing(self.slow))
        await enter(self.sampler.running())
        await self.listen()
        self.driver.load()  # takes seconds on the first start: finish before probes begin
        await enter(self.health.running())
        if not self.has_flows:  # adopted tables forward already
            await self.health.settled()
        self.mux.start(self.has_flows)
        await self._hide_vips()
        start(self.driver)
        if self.driver.stays:  # super-frames must stay off while the kernel forwards without this process
            self.offloads.clear()
        await enter(self.interface_watch.running())
        await enter(self.slot_sweep.running())
        self.overload_watch.configure(wanted)
        await enter(self.overload_watch.running())
        services = counted(len(self.config.services), "service")
        log.info(self.role + " %s on %s: %s", " and ".join(map(str, self.local)), self.options.interface, services)

    async def announce(self) -> None:
        """Announce the VIPs, as the last step: routers send packets at once."""
        if self.announcer is not None:
            await self.stack.enter_async_context(self.announcer)
            await self.routes.announce(self.mux.config or self.config)

    async def stop(self) -> None:
        if self.announcer is not None:
            await self.routes.withdraw()
            await wait_quiet(self._forwarded, self.options.drain_s, self.stop_now)
        self.loop.read()

    def handlers(self) -> dict[Kind, Handler]:
        handlers = {**self.status.handlers(), **self.health.handlers(), **self.sampler.handlers()}
        handlers |= self.overload_watch.handlers()
        handlers[Trace] = self.trace_hub.watch
        if self.link is not None:
            handlers |= self.link.planning(self.reloader, self.mux.slots_moved)
        return handlers | (
            bgp_handlers(self.announcer, lambda: self.reloader.wanted) if self.announcer is not None else {}
        )

    def metrics(self) -> AbstractAsyncContextManager[object]:
        histograms = self.loop.loop_histograms
        return serving(self.options.metrics, self.status, histograms, self.announcer, lambda: self.reloader.wanted)

    def probed(self, config: Config) -> Config:
        """Return the configuration by which backends are probed."""
        return config

    def snapshot(self) -> Snapshot:
        return Snapshot.of_mux(self.mux)

    async def _hide_vips(self) -> None:
        """Hide VIPs from the host's own forwarding; again when the interface was recreated."""
        await self.host_forwarding.configure(self.reloader.running.effective)

    async def _configure_probes(self, running: RunningConfig) -> None:
        try:
            await self.tunnel_probes.configure(self.probed(running.wanted))
            await self.host_probes.configure(running.wanted)
        except LbmuxError as error:
            log.error("backends that are probed through the tunnel keep their configuration: %s", error)

    def _is_overloaded(self) -> bool:
        return self.overload_watch.overload.since is not None

    def _forwarded(self) -> int:
        """Packets that the kernel's program and this process have forwarded."""
        return int(self.driver.tables.verdicts[:, Verdict.FORWARDED]["packets"].sum())


def xdp_mode(options: Options) -> str:
    """Return the XDP mode: on a veth generic unless the options say otherwise, which is slower but always works.

    A veth end that gets frames by XDP_TX delivers them only if it has an XDP program too, and the far end's programs
    are not known here.
    """
    if options.xdp_mode != "auto":
        return options.xdp_mode
    return "generic" if device_driver(options.interface) == "veth" else "native"
