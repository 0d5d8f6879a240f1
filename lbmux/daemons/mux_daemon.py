"""The mux as a process: frames from the ring through the data path, everything else beside it on one event loop."""

import asyncio
import contextlib
import dataclasses
import functools
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lbmux.addresses import Address
from lbmux.api.control_socket import ControlServer, default_path
from lbmux.api.refusals import OF_A_MUX, refuse_requests
from lbmux.backends.override_store import OverrideStore
from lbmux.backends.overrides import with_overrides
from lbmux.backends.tracker import BackendTracker
from lbmux.bgp.bgp_settings import Bgp, prefixes_of, routes_of
from lbmux.config.loader import load
from lbmux.config.models import Config
from lbmux.daemons.announcement import announcing
from lbmux.daemons.challenge_ack import ChallengeAckProbe
from lbmux.daemons.daemon_host_probes import HostProbes
from lbmux.daemons.drivers import Driver, alone, choose, start, with_fallback
from lbmux.daemons.forwarding_check import ForwardingCheck
from lbmux.daemons.host_forwarding import HostForwarding
from lbmux.daemons.metrics_endpoint import serving
from lbmux.daemons.mux_health import Health
from lbmux.daemons.mux_slow_path_io import Sender, SlowFrames, refreshing
from lbmux.daemons.packet_loop import PacketLoop
from lbmux.daemons.presence import Presence
from lbmux.daemons.process import notify, ready, stop_event
from lbmux.daemons.reloader import Reloader
from lbmux.daemons.status_handlers import StatusHandlers
from lbmux.daemons.trace_hub import TraceHub
from lbmux.daemons.tunnel_probes import TunnelProbes
from lbmux.daemons.wait_quiet import wait_quiet
from lbmux.datapath.verdicts import Verdict
from lbmux.errors import LbmuxError
from lbmux.frames.packet_ring import PacketRing
from lbmux.linux.next_hops import NextHop, NextHops, first_addresses
from lbmux.linux.offloads import device_driver, without_super_frames
from lbmux.plurals import counted
from lbmux.tables.migration import copy_keys
from lbmux.tables.mux_tables import MuxTables, sizes_for
from lbmux.tables.snapshot import Snapshot
from lbmux.targets.bpf.syscall import Attach
from lbmux.targets.native import Worker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What is local to one mux; the configuration file is shared by all."""

    config: Path
    interface: str
    addresses: tuple[Address, ...] = ()
    control: Path | None = None
    driver: str = "auto"
    detach_on_exit: bool = False
    xdp_mode: str = "auto"
    bgp: Bgp | None = None
    bgp_speaker: str = "exabgp"
    drain_s: float = 30.0
    metrics: str | None = None
    health_token: Path | None = None


def xdp_mode(options: Options) -> str:
    """A veth end that gets frames by XDP_TX wakes up only if it has a program too; of the other end we cannot know.

    So by default generic there: slower, and it always works.
    """
    if options.xdp_mode != "auto":
        return options.xdp_mode
    return "generic" if device_driver(options.interface) == "veth" else "native"


async def own_addresses(interface: str) -> tuple[Address, ...]:
    return await asyncio.to_thread(first_addresses, interface)


def _tables_in_force(driver: Driver, local: Iterable[Address], config: Config) -> MuxTables:
    """The driver's tables with the configuration in them."""
    if driver.previous is not None:
        copy_keys(driver.previous, driver.tables)
    mux = MuxTables(driver.tables, *local)
    mux.commit(mux.plan(config))
    if driver.adopted:
        flows = counted(int(np.count_nonzero(driver.tables.flows["state"])), "flow")
        log.info("adopted the tables in force: %s", flows)
    return mux


def _forwarded(driver: Driver) -> int:
    """Packets, by the kernel's program and here."""
    return int(driver.tables.verdicts[:, Verdict.FORWARDED]["packets"].sum())


async def serve(options: Options) -> None:
    """Run until SIGTERM; what was read by then is still sent, and what comes after it has withdrawn.

    A second SIGTERM, or SIGINT, does not wait for that.
    """

    async def with_driver(driver: str) -> None:
        await _serve(dataclasses.replace(options, driver=driver))

    await with_fallback(options.driver, "packet", options.interface, with_driver)


async def _serve(options: Options) -> None:
    config = await asyncio.to_thread(load, options.config)
    local = options.addresses or await own_addresses(options.interface)
    control = options.control or default_path("mux")
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(alone("mux", options.interface))
        announcer = announcing(
            options.bgp, options.bgp_speaker, local, control, can_forward=lambda: can_forward(),
            alive=lambda: loop.made_progress(),
            forwards=lambda: driver.kernel is not None and driver.kernel.is_attached(),
        )  # fmt: skip
        ring = stack.enter_context(PacketRing(options.interface))
        switched = stack.enter_context(without_super_frames(options.interface))
        programs, sizes = {Attach.XDP: "mux_xdp"}, functools.partial(sizes_for, config)
        driver = stack.enter_context(
            choose(
                "mux",
                options.driver,
                "packet",
                options.interface,
                sizes,
                programs,
                options.detach_on_exit,
                xdp_mode(options),
            )  # fmt: skip
        )
        can_forward = ForwardingCheck(ring, driver, options.driver == "xdp")
        tracker, book = (
            BackendTracker(control.with_suffix(".found")),
            OverrideStore(control.with_suffix(".overrides"), config),
        )
        has_flows = driver.adopted or driver.previous is not None
        if has_flows:
            tracker.restore()
        wanted = with_overrides(config, book.overrides)
        mux = _tables_in_force(driver, local, tracker.effective(wanted, book.overrides))
        sender = stack.enter_context(Sender(options.interface))
        slow = SlowFrames(mux, Worker(driver.tables, driver.worker), sender)
        host = stack.enter_context(HostForwarding(options.interface, driver.kernel is not None))
        challenge_ack_probe = ChallengeAckProbe(lambda: Snapshot.of_mux(mux), sender.send)
        loop = PacketLoop(ring, Worker(driver.tables, driver.worker), slow.handle)
        loop.warm_up()

        probes = TunnelProbes(local, ring.send)
        await stack.enter_async_context(probes.running())
        await probes.configure(wanted)
        hosts = HostProbes(local, sender.send)
        await hosts.configure(wanted)

        def moved(destination: Address, hop: NextHop | None) -> None:
            mux.set_next_hop(destination, hop)
            probes.set_next_hop(destination, hop)
            hosts.set_next_hop(destination, hop)
            log.info("next hop of %s: %s", destination, hop or "not known")
            if hop is not None:
                loop.retry()

        hops = await stack.enter_async_context(NextHops(moved))
        await hops.watch(mux.destinations() | probes.destinations() | hosts.destinations())

        trace_hub = TraceHub(lambda: Snapshot.of_mux(mux), loop.watch, driver)
        about: dict[str, Any] = {"interface": options.interface, "addresses": [*map(str, local)]}
        status = StatusHandlers(
            lambda: Snapshot.of_mux(mux), driver, options.config, about, ring, loop.pending_neighbours, slow.counters
        )
        status.more["host_forwarding"] = host.describe

        async def removals(after: Config) -> bool:
            """A VIP that goes away is withdrawn while it is still served."""
            if announcer is None or mux.config is None or prefixes_of(mux.config) <= prefixes_of(after):
                return False
            stay = prefixes_of(after)
            await announcer.announce(frozenset(route for route in routes_of(mux.config) if route.prefix in stay))
            return True

        async def keep_from_host() -> None:
            if mux.config is not None:
                await host.configure(mux.config)

        async def in_force() -> None:
            status.loaded()
            slow.configure()
            await keep_from_host()
            challenge_ack_probe.in_force(reloader.wanted.slowpath)
            try:
                await probes.configure(reloader.wanted)
                await hosts.configure(reloader.wanted)
            except LbmuxError as error:
                log.error("backends that are probed through the tunnel stay as they are: %s", error)
            await hops.watch(mux.destinations() | probes.destinations() | hosts.destinations())
            health.configure(reloader.wanted)
            if announcer is not None and mux.config is not None:
                await announcer.announce(routes_of(mux.config))

        stack.enter_context(refreshing(slow))
        reloader = Reloader(options.config, mux, in_force, config, book, tracker.effective, removals)
        health = Health(
            tracker, reloader, lambda: Snapshot.of_mux(mux), probes.bind, options.health_token, local, hosts
        )
        handlers: dict[str, Any] = {**refuse_requests(OF_A_MUX), **reloader.handlers(), **status.handlers()}
        handlers |= {**health.handlers(), "trace": trace_hub.watch}
        if announcer is not None:
            handlers |= announcer.handlers()
        await stack.enter_async_context(ControlServer(control, handlers))
        metrics = serving(options.metrics, status, loop.loop_histograms, announcer, lambda: reloader.wanted)
        await stack.enter_async_context(metrics)
        at_once = asyncio.Event()
        stop = stop_event(on_reload=reloader.soon, at_once=at_once)
        driver.load()  # which may take seconds: not while probes are under way
        await stack.enter_async_context(health.running())
        if not has_flows:  # else the kernel forwards already, by what was found before
            await health.settled()
        await keep_from_host()
        start(driver)
        if driver.stays:  # and frames still must not be joined then
            switched.clear()
        await stack.enter_async_context(Presence(ring, driver, about, loop.read, keep_from_host).running())
        services = counted(len(config.services), "service")
        log.info("mux %s on %s: %s", " and ".join(map(str, local)), options.interface, services)
        ready()
        if announcer is not None:  # not before: packets would come that nobody forwards
            await stack.enter_async_context(announcer)
            await announcer.announce(routes_of(mux.config or config))
        await stop.wait()
        notify("STOPPING=1")
        if announcer is not None:
            await announcer.withdraw()
            await wait_quiet(lambda: _forwarded(driver), options.drain_s, at_once)
        loop.read()
    log.info("stopped; goodbye")
