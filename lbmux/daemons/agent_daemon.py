"""The host agent as a process, in user space: frames from the ring, through a TUN device, to the local stack.

With source NAT the replies come back through the same TUN device (control.policy_routes) and leave by a raw socket.
"""

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from lbmux.addresses import Address
from lbmux.api.control_socket import ControlServer, default_path
from lbmux.api.refusals import OF_AN_AGENT, refuse_requests
from lbmux.backends.override_store import OverrideStore
from lbmux.backends.overrides import with_overrides
from lbmux.config.loader import load
from lbmux.config.models import Backend, Config, Service
from lbmux.daemons.agent_backends import AgentBackends
from lbmux.daemons.agent_health import AgentHealth, own_backends
from lbmux.daemons.agent_loop import CAPACITY, AgentLoop
from lbmux.daemons.agent_slow_path_io import SlowAgent
from lbmux.daemons.config_listeners import on_config
from lbmux.daemons.drivers import DriverChoice, alone, choose, start, with_fallback
from lbmux.daemons.egress import Egress
from lbmux.daemons.keeping import Keeping
from lbmux.daemons.leftovers import DEVICE, release_if_nobody_has_it
from lbmux.daemons.metrics_endpoint import serving
from lbmux.daemons.presence import Presence
from lbmux.daemons.process import notify, ready, stop_event
from lbmux.daemons.reloader import Reloader
from lbmux.daemons.status_handlers import StatusHandlers
from lbmux.daemons.trace_hub import TraceHub
from lbmux.errors import SetupError
from lbmux.frames.packet_ring import PacketRing
from lbmux.frames.raw_sender import RawSender
from lbmux.frames.socket_filters import NOTHING, attach, tunnels
from lbmux.frames.tun import Tun
from lbmux.linux.next_hops import addresses
from lbmux.linux.offloads import without_super_frames
from lbmux.linux.policy_routes import MARK, PolicyRoutes, ReplySource
from lbmux.linux.sock_diag import Connections
from lbmux.tables.agent_tables import AgentTables, advmss, ports_of, sizes_for
from lbmux.tables.migration import copy_keys
from lbmux.tables.snapshot import Snapshot
from lbmux.tables.upkeep import Upkeep
from lbmux.targets.bpf.syscall import Attach
from lbmux.targets.native import Worker

log = logging.getLogger(__name__)

BESIDE = "lbmux-up%d"
"""The TUN device beside a kernel's driver, where the system chooses the number."""
TUNNEL_PROTOCOLS = (socket.IPPROTO_IPIP, socket.IPPROTO_IPV6, socket.IPPROTO_GRE)
RT_SCOPE_LINK = 253
NO_LINK_LOCAL = "1"
"""addr_gen_mode: without an address the device sends no router solicitations and no listener reports."""
LOOSE, DEVICE_ADDRESS = "2", "169.254.91.18"
"""rp_filter: loose beats strict, whatever the setting for all interfaces; but not on a device without an address."""


@dataclass(frozen=True)
class Options:
    """What is local to one agent; the configuration file is shared by all."""

    config: Path
    interface: str
    addresses: tuple[Address, ...] = ()
    mode: str = "nat"
    muxes: tuple[Address, ...] = ()
    control: Path | None = None
    driver: str = "auto"
    detach_on_exit: bool = False
    metrics: str | None = None
    health_token: Path | None = None


@contextlib.contextmanager
def silence(*udp_ports: int) -> Iterator[None]:
    """Open sockets for what tunnels travel in: the kernel then answers none with "protocol" or "port unreachable"."""
    kinds = [(socket.SOCK_RAW, protocol, 0) for protocol in TUNNEL_PROTOCOLS]
    kinds += [(socket.SOCK_DGRAM, 0, port) for port in udp_ports]
    with contextlib.ExitStack() as stack:
        for family, (kind, protocol, port) in itertools.product((socket.AF_INET, socket.AF_INET6), kinds):
            try:
                sock = stack.enter_context(socket.socket(family, kind, protocol))
                attach(sock, NOTHING)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                if port:
                    sock.bind(("", port))
            except PermissionError as error:
                raise SetupError("raw socket", "not permitted", "needs CAP_NET_RAW: run as root") from error
            except OSError:
                continue  # a kernel without IPv6; or somebody has the port, who then is the one to answer
        yield


def _bring_up(device: str) -> None:
    Path(f"/proc/sys/net/ipv4/conf/{device}/rp_filter").write_text(LOOSE)
    with contextlib.suppress(OSError):  # a kernel without IPv6
        Path(f"/proc/sys/net/ipv6/conf/{device}/addr_gen_mode").write_text(NO_LINK_LOCAL)
        Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").write_text("0")
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=device)[0]
        ip.addr("replace", index=index, address=DEVICE_ADDRESS, prefixlen=32, scope=RT_SCOPE_LINK)
        ip.link("set", index=index, state="up", mtu=1500)


def reply_sources(agent: AgentTables) -> set[ReplySource]:
    """One of each backend here; any port of a service stands for all of them."""

    def ports(service: Service, backend: Backend) -> range | None:
        found = [*ports_of(service, backend)]
        return range(found[0], found[-1] + 1) if found[0] else None

    pairs = (*agent.served, *agent.probed)
    return {ReplySource(backend.dip, ports(service, backend), service.protocol) for service, backend in pairs}


async def serve(options: Options) -> None:
    """Run until SIGTERM; what was set up is taken away, also what a killed run left."""

    async def with_driver(driver: str) -> None:
        await _serve(dataclasses.replace(options, driver=driver))

    await with_fallback(options.driver, "tun", options.interface, with_driver)


async def _serve(options: Options) -> None:
    config = await asyncio.to_thread(load, options.config)
    control = options.control or default_path("agent")
    book = OverrideStore(control.with_suffix(".overrides"), config)
    own: Iterable[Address] = options.addresses or await asyncio.to_thread(addresses)
    async with contextlib.AsyncExitStack() as stack:
        if options.driver != "tun":  # whose device there is but once
            stack.enter_context(alone("agent", options.interface))
        stack.enter_context(silence(config.tunnel.gue_port, config.tunnel.geneve_port))
        switched = stack.enter_context(without_super_frames(options.interface))
        programs, sizes = {Attach.XDP: "agent_xdp", Attach.TCX_EGRESS: "agent_tc"}, functools.partial(sizes_for, config)
        store = control.with_suffix(".tables")
        driver = stack.enter_context(
            choose(
                DriverChoice(
                    "agent", options.interface, options.driver, "tun", programs, options.detach_on_exit, store=store
                ),
                sizes,
            )
        )
        if driver.previous is not None:
            copy_keys(driver.previous, driver.tables)
        agent = AgentTables(driver.tables, own, options.muxes, options.mode)
        agent.commit(agent.plan(with_overrides(config, book.overrides)))
        worker = Worker(driver.tables, driver.worker)
        upkeep = Upkeep(agent, Worker(driver.tables, driver.worker))
        keeping = Keeping(agent, upkeep, stack.enter_context(Connections()))
        await keeping.run_once()
        start_loop = _start_tun if driver.kernel is None else _start_beside
        loop, slow, on_commit = await start_loop(options, agent, worker, upkeep, stack)
        keeping.count = functools.partial(_count, slow.counts, "flows_restored")
        about: dict[str, Any] = {"interface": options.interface, "mode": options.mode}
        about["addresses"] = sorted(map(str, agent.own))
        await on_commit()
        if driver.kernel is not None:
            await stack.enter_async_context(Egress(driver.kernel, about).running())
        start(driver, is_agent=True)
        await stack.enter_async_context(Presence(loop.ring, driver, about, loop.inbound).running())
        await keeping.run_once()  # those that opened since, whose first packets no program of ours has seen
        await stack.enter_async_context(keeping.running())
        if driver.kernel is not None:
            await asyncio.to_thread(release_if_nobody_has_it)
        if driver.stays:  # and frames still must not be joined then
            switched.clear()
        status = StatusHandlers(
            lambda: Snapshot.of_agent(agent), driver, options.config, about, loop.ring, slow=slow.counters
        )

        health = AgentHealth(options.health_token)

        async def probe() -> None:
            assert agent.config is not None
            own_ones = own_backends(agent.config, agent.served, options.mode == "local")
            await health.configure(own_ones, {*agent.config.muxes, *options.muxes})

        async def in_force() -> None:
            status.loaded()
            await on_commit()
            await probe()

        await stack.enter_async_context(health.running())
        await probe()
        reloader = Reloader(options.config, agent, config, book)
        reloader.listeners = [on_config(lambda _: in_force())]
        tracker = AgentBackends(reloader, lambda: Snapshot.of_agent(agent), health)
        await stack.enter_async_context(tracker.running())
        trace_hub = TraceHub(lambda: Snapshot.of_agent(agent), loop.watch, driver)
        handlers: dict[str, Any] = {**refuse_requests(OF_AN_AGENT), **reloader.handlers(), **status.handlers()}
        handlers |= {**tracker.handlers(), "trace": trace_hub.watch}
        await stack.enter_async_context(ControlServer(control, handlers))
        await stack.enter_async_context(serving(options.metrics, status))
        stop = stop_event(on_reload=reloader.soon)
        where = f"{options.interface} ({driver.name})"
        log.info("agent on %s, mode %s: %d backends of this host", where, options.mode, len(agent.served))
        ready()
        await stop.wait()
        notify("STOPPING=1")
    log.info("stopped; goodbye")


Started = tuple[AgentLoop, SlowAgent, Callable[[], Awaitable[None]]]
"""Packet loop, slow path, and what is to be called when a configuration is in force."""


def _count(counts: Counter[str], name: str, number: int) -> None:
    counts[name] += number


async def _open(
    options: Options, agent: AgentTables, worker: Worker, upkeep: Upkeep, device: str, stack: contextlib.AsyncExitStack
) -> tuple[Tun, AgentLoop, SlowAgent]:
    """What both drivers have in user space; the ring reads nothing yet, nor is the device read."""
    ring = stack.enter_context(PacketRing(options.interface, only=NOTHING))
    tun = stack.enter_context(Tun(device, CAPACITY))
    await asyncio.to_thread(_bring_up, tun.name)
    sender = stack.enter_context(RawSender(MARK, CAPACITY))
    connections = stack.enter_context(Connections())
    slow = SlowAgent(agent, Worker(worker.tables, worker.number), tun, sender, connections, upkeep)
    loop = AgentLoop(ring, tun, sender, worker, slow, beside=device != DEVICE)
    loop.warm_up()
    return tun, loop, slow


def _add_reader(stack: contextlib.AsyncExitStack, descriptor: int, handler: Callable[[], None]) -> None:
    events = asyncio.get_running_loop()
    events.add_reader(descriptor, handler)
    stack.callback(events.remove_reader, descriptor)


def _into_force(agent: AgentTables, slow: SlowAgent, ring: PacketRing) -> Config:
    """The configuration that came into force."""
    config = agent.config
    assert config is not None
    slow.configure()
    ring.restrict(tunnels(config.tunnel.gue_port, config.tunnel.geneve_port))
    return config


async def _start_tun(
    options: Options, agent: AgentTables, worker: Worker, upkeep: Upkeep, stack: contextlib.AsyncExitStack
) -> Started:
    """The driver in user space.  In mode nat its device and its routes outlive it, and hold replies back meanwhile."""
    tun, loop, slow = await _open(options, agent, worker, upkeep, DEVICE, stack)
    tun.stay(options.mode == "nat")
    routes = PolicyRoutes(tun.name)
    if options.detach_on_exit:
        stack.callback(tun.stay, False)
        stack.push_async_callback(asyncio.to_thread, routes.close)
    _add_reader(stack, tun.fileno(), loop.outbound)

    async def in_force() -> None:
        config = _into_force(agent, slow, loop.ring)
        sources = reply_sources(agent) if options.mode == "nat" else set[ReplySource]()
        await asyncio.to_thread(routes.set, sources, advmss(config))

    return loop, slow, in_force


async def _start_beside(
    options: Options, agent: AgentTables, worker: Worker, upkeep: Upkeep, stack: contextlib.AsyncExitStack
) -> Started:
    """Beside the kernel's driver: tunnelled frames that it leaves (ICMP, fragments, options) go the way of user space.

    So do replies that its program cannot translate, which it sends to the device.
    """
    tun, loop, slow = await _open(options, agent, worker, upkeep, BESIDE, stack)
    _add_reader(stack, tun.fileno(), loop.outbound)
    settings = agent.tables.settings[0]
    settings["punt_interface"] = socket.if_nametoindex(tun.name)
    stack.callback(settings.__setitem__, "punt_interface", 0)

    async def in_force() -> None:
        _into_force(agent, slow, loop.ring)

    return loop, slow, in_force
