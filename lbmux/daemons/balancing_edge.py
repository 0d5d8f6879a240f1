"""The balancing edge: a mux whose backends are the edges, and the agent of its own host, in one process (Unimog's way).

    packet → mux: which edge? → another one: tunnel → agent there → its local stack
                              → this one: agent here → local stack

Every edge announces the VIPs and takes any packet. The Maglev table over all edges is the same on each, so a packet
reaches the edge that has its connection whichever edge the router chose; second chance finds a connection that began
before the table changed. Mux and agent are those of hosts that have one role only, and see the same packets as there.
Two things are different on a host that is both:

- The host has two addresses. The mux's is in ``muxes``; the agent's is the backends' ``dip``. An edge's packet to
  another edge is thus either forwarded (from a mux to a host) or returned (from a host to a mux).
- What one role sends to the other role of its own host stays in this process.

The VIP is an address of the host, so the kernel's own receive path must not see packets for it before the agent does
(lbmux.frames.vip_filter).
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lbmux.addresses import Address
from lbmux.api.control_server import Handler, Kind
from lbmux.api.refusals import OF_A_MUX
from lbmux.api.requests import CountConnections
from lbmux.config.models import Config
from lbmux.daemons import agent_daemon, mux_daemon
from lbmux.daemons.agent_daemon import AgentDaemon
from lbmux.daemons.announcement import with_local
from lbmux.daemons.config_listeners import Listener, RunningConfig, on_config
from lbmux.daemons.drivers import with_fallback
from lbmux.daemons.edge_vips import probed_directly, services_of_host
from lbmux.daemons.mux_daemon import MuxDaemon
from lbmux.daemons.packet_loop import ToOwnHost
from lbmux.daemons.skeleton import run_daemon
from lbmux.errors import SetupError
from lbmux.frames.batch import Batch
from lbmux.frames.socket_filters import WITH_SOURCE
from lbmux.linux.interface_addresses import addresses, first_addresses
from lbmux.slowpath.reassembly import LARGEST_BYTES
from lbmux.wire.header_layouts import ETHERNET_BYTES
from lbmux.wire.packet import destination_of

FIRST = np.zeros(1, np.intp)
ACCEPT_LOCAL = Path("/proc/sys/net/ipv4/conf")


@dataclass(frozen=True, kw_only=True)
class Options(mux_daemon.Options):
    """Settings of one edge; ``addresses``: those of its host that it uses, by default all."""


async def serve(options: Options) -> None:
    """Run until SIGTERM; then withdraw, forward the remaining packets, and stop."""

    async def with_driver(driver: str) -> None:
        await run_daemon(BalancingEdge, dataclasses.replace(options, driver=driver))

    await with_fallback(options.driver, "packet", options.interface, with_driver)


class BalancingEdge(MuxDaemon):
    """The mux, which is this daemon, and ``agent``, which has a control socket of its own beside it."""

    role, refusals, has_vips, serves_host, rights = "edge", OF_A_MUX, True, True, "balancing-edge"

    async def build(self) -> None:
        own: Collection[Address] = self.options.addresses or await asyncio.to_thread(addresses)
        mine = mux_addresses(self.config, own, self.options.config)
        await self._use(mine)
        self.own_host = frozenset(own) - frozenset(mine)
        await super().build()
        self.ring.restrict(WITH_SOURCE)
        self.overload_watch.load_shedding.otherwise = WITH_SOURCE
        self.agent = AgentDaemon(self._agent_options(), self.config, self.stack)
        await self.agent.build()
        if self.link is not None:
            health = self.agent.health
            health.changed = self.link.report_health(health.lines, lambda: health.loads)
        self.agent.reloader.listeners = self.agent.on_config()
        self._join()

    async def _use(self, mine: tuple[Address, ...]) -> None:
        """Take these addresses for outer headers, and the interface's first ones for BGP sessions and next hops."""
        first, bgp = await asyncio.to_thread(first_addresses, self.options.interface), self.options.bgp
        bgp = bgp and with_local(bgp, first)
        self.options = dataclasses.replace(self.options, addresses=mine, bgp=bgp)

    def _agent_options(self) -> agent_daemon.Options:
        options = self.options
        return agent_daemon.Options(
            config=options.config,
            interface=options.interface,
            addresses=tuple(self.own_host),
            control=self.control.with_suffix(".agent.sock"),
            mode="local",
            driver="tun" if self.driver.kernel is None else options.driver,
            behind_mux=True,
            health_token=options.health_token,
        )

    def _join(self) -> None:
        """Hand each role what the other one of this host sends to it."""
        events, local, path = asyncio.get_running_loop(), frozenset(self.options.addresses), self.agent.path

        def to_own_mux(frame: bytes) -> bool:
            if destination_of(frame[ETHERNET_BYTES:]) not in local:
                return False
            events.call_soon(self.slow.returned, frame)  # not now: the mux may be waiting for the agent
            return True

        self.loop.to_own_host = path.loop.from_own_mux
        self.sender.to_own_host = OneFrame(path.loop.from_own_mux)
        path.slow.to_own_mux = to_own_mux

    def on_config(self) -> list[Listener]:
        return [on_config(self._reload_agent), *super().on_config()]

    async def _reload_agent(self, running: RunningConfig) -> None:
        await self.agent.reloader.follow_manager(self.reloader.config, self.overrides.overrides)

    def handlers(self) -> dict[Kind, Handler]:
        return {**super().handlers(), CountConnections: self.agent.socket_sync_task.count}

    def probed(self, config: Config) -> Config:
        """Return the configuration with direct probes only: through the tunnel they would never leave this host."""
        return probed_directly(config)

    async def _hide_vips(self) -> None:
        """Do what depends on the interface; again when it was recreated."""
        await self.next_hops.set_own_host(self.own_host, self.options.interface)
        await super()._hide_vips()

    async def start(self) -> None:
        await self.next_hops.set_own_host(self.own_host, self.options.interface)
        for interface in (self.options.interface, self.agent.path.tun.name):
            self.stack.enter_context(accepting_local(interface))
        await self.agent.start()
        await super().start()


class OneFrame:
    """Passes frames, one at a time, to a function that takes frames of a batch and rewrites them in place."""

    def __init__(self, take: ToOwnHost) -> None:
        self._take, self._batch, self._buffer = take, Batch(1), np.zeros(LARGEST_BYTES + ETHERNET_BYTES, np.uint8)

    def __call__(self, frame: bytes) -> None:
        self._buffer[: len(frame)] = np.frombuffer(frame, np.uint8)
        self._batch.address[0], self._batch.length[0], self._batch.count = self._buffer.ctypes.data, len(frame), 1
        self._take(self._batch, FIRST)


def mux_addresses(config: Config, own: Collection[Address], file: Path) -> tuple[Address, ...]:
    """Return the addresses of this host that are in ``muxes``. Raise SetupError if the file does not fit an edge."""
    mine = tuple(address for address in config.muxes if address in own)
    if not mine:
        hint = "add one that is not the `dip` of a backend, and have the edge's host use it"
        raise SetupError(str(file), "muxes: none is an address of this host", hint)
    if both := {backend.tunnel_to for service in config.services for backend in service.backends} & {*config.muxes}:
        hint = "give each edge two addresses: its mux's in `muxes`, and the `dip` of its backends"
        raise SetupError(str(file), f"muxes: {min(both, key=str)} is also the `dip` of a backend", hint)
    if not services_of_host(config, own).services:
        hint = "name the one that it has there by --address, or add it to the file"
        raise SetupError(str(file), "no backend has an address of this host as its `dip`", hint)
    return mine


@contextlib.contextmanager
def accepting_local(interface: str) -> Iterator[None]:
    """Accept IPv4 packets from this host's addresses inside the block.

    The mux's probe of its own host comes from such an address; the answer of another edge's host comes from the VIP.
    """
    setting = ACCEPT_LOCAL / interface / "accept_local"
    before = setting.read_text()
    setting.write_text("1")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the interface may be gone
            setting.write_text(before)
