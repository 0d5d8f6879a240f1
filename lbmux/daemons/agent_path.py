"""The agent's packet path in user space: ring, TUN device, raw sender, packet loop and slow path.

The ``tun`` driver uses it for every packet.  The kernel's driver uses it for what its programs punt.
"""

import asyncio
import contextlib
import socket
from pathlib import Path

from pyroute2 import IPRoute

from lbmux.config.models import Backend, Config, Service
from lbmux.daemons.agent_loop import CAPACITY, AgentLoop
from lbmux.daemons.agent_slow_path_io import SlowAgent
from lbmux.daemons.reply_hold import DEVICE
from lbmux.datapath.tables import LOCAL
from lbmux.frames.packet_ring import PacketRing
from lbmux.frames.probe_filter import only_probes, without_probes
from lbmux.frames.raw_sender import RawSender
from lbmux.frames.socket_filters import NOTHING, tunnels
from lbmux.frames.tun import Tun
from lbmux.linux.host_sockets import HostSockets
from lbmux.linux.policy_routes import MARK, PolicyRoutes, ReplySource
from lbmux.tables.agent_tables import AgentTables, advmss, ports_of
from lbmux.tables.socket_sync import SocketSync
from lbmux.targets.native import Worker

PUNT_DEVICE = "lbmux-up%d"
"""The TUN device beside the kernel's driver; the kernel fills in the number."""
RT_SCOPE_LINK = 253
NO_LINK_LOCAL = "1"
"""addr_gen_mode: without an address the device sends no router solicitations and no listener reports."""
LOOSE, DEVICE_ADDRESS = "2", "169.254.91.18"
"""rp_filter: loose overrides strict, whatever the setting for all interfaces, but only on a device with an address."""
PROBE_FRAMES = 64


class AgentPath:
    """Frames from the rings go through the TUN device to the local stack; replies return by it and leave by a raw
    socket. Muxes' probes of this host have a ring of their own, so that no flood makes it seem dead."""

    is_beside_kernel = False
    device = DEVICE

    def __init__(
        self,
        interface: str,
        agent: AgentTables,
        socket_sync: SocketSync,
        sockets: HostSockets,
        stack: contextlib.AsyncExitStack,
    ) -> None:
        """``stack`` closes what ``open`` opens."""
        self._agent, self._socket_sync, self._sockets, self._stack = agent, socket_sync, sockets, stack
        self._interface = interface

    async def open(self, worker: int) -> None:
        """``worker``: the number of user space's part of the tables.  Rings and device are not read yet."""
        agent, enter, tables = self._agent, self._stack.enter_context, self._agent.tables
        self.ring = enter(PacketRing(self._interface, only=NOTHING))
        self.probe_ring = enter(PacketRing(self._interface, PROBE_FRAMES, only=NOTHING))
        self.tun = enter(Tun(self.device, CAPACITY))
        await asyncio.to_thread(_bring_up, self.tun.name)
        sender = enter(RawSender(MARK, CAPACITY))
        self.slow = SlowAgent(agent, Worker(tables, worker), self.tun, sender, self._sockets, self._socket_sync)
        self.loop = AgentLoop(
            (self.probe_ring, self.ring), self.tun, sender, Worker(tables, worker), self.slow,
            beside=self.is_beside_kernel,
        )  # fmt: skip
        self.loop.warm_up()

    def start(self) -> None:
        """Read replies; the rings are read by the interface watch."""
        events = asyncio.get_running_loop()
        events.add_reader(self.tun.fileno(), self.loop.outbound)
        self._stack.callback(events.remove_reader, self.tun.fileno())

    async def configure(self, config: Config) -> None:
        """``config`` is in the tables now."""
        self.slow.configure()
        tunnel = config.tunnel
        ports = (tunnel.gue_port, tunnel.geneve_port)
        self.ring.restrict(without_probes(tunnel.probe_port, *ports, tunnels(*ports)))
        self.probe_ring.restrict(only_probes(tunnel.probe_port, *ports))


class TunPath(AgentPath):
    """The ``tun`` driver.  In mode nat its device and routes outlive the process and hold replies back."""

    def __init__(
        self,
        interface: str,
        agent: AgentTables,
        socket_sync: SocketSync,
        sockets: HostSockets,
        stack: contextlib.AsyncExitStack,
        *,
        detach_on_exit: bool,
    ) -> None:
        super().__init__(interface, agent, socket_sync, sockets, stack)
        self._detach_on_exit, self._is_nat = detach_on_exit, agent.mode != LOCAL

    async def open(self, worker: int) -> None:
        await super().open(worker)
        self.tun.stay(self._is_nat)
        self._routes = PolicyRoutes(self.tun.name)
        if self._detach_on_exit:
            self._stack.callback(self.tun.stay, False)
            self._stack.push_async_callback(asyncio.to_thread, self._routes.close)

    async def configure(self, config: Config) -> None:
        await super().configure(config)
        sources = reply_sources(self._agent) if self._is_nat else set[ReplySource]()
        await asyncio.to_thread(self._routes.set, sources, advmss(config))


class PuntPath(AgentPath):
    """Beside the kernel's driver: tunnelled frames that it punts (ICMP, fragments, IP options), and replies that its
    program cannot translate and redirects to the TUN device."""

    is_beside_kernel = True
    device = PUNT_DEVICE

    def start(self) -> None:
        super().start()
        settings = self._agent.tables.settings[0]
        settings["punt_interface"] = socket.if_nametoindex(self.tun.name)
        self._stack.callback(settings.__setitem__, "punt_interface", 0)


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
    """Return one source for each backend of this host; any port of a service stands for all its ports."""

    def ports(service: Service, backend: Backend) -> range | None:
        numbers = [*ports_of(service, backend)]
        return range(numbers[0], numbers[-1] + 1) if numbers[0] else None

    pairs = (*agent.served, *agent.probed)
    return {ReplySource(backend.dip, ports(service, backend), service.protocol) for service, backend in pairs}
