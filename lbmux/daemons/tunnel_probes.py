"""Probes through the tunnel: connections from the mux to a VIP, each tunnelled to the backend under test.

A probe's socket is marked, so that its packets leave by a TUN device (lbmux.linux.probe_routes).  Their source port
names the backend; they are encapsulated like any packet of the service.  The backend answers as it does any client:
directly, from the VIP.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import numpy as np

from lbmux.addresses import Address
from lbmux.codegen.compiled import compiled
from lbmux.config.models import BackendKey, Config, Service
from lbmux.daemons.probe_tables import ProbeTables
from lbmux.datapath.context import backends, context_at, settings
from lbmux.datapath.encapsulate import encapsulate
from lbmux.datapath.frame import frame, frame_end
from lbmux.datapath.memory import at_address, int64, swap16, u32
from lbmux.datapath.parse import PARSED, parse, source_port
from lbmux.datapath.tables import backend_row, settings_row
from lbmux.datapath.verdicts import Verdict
from lbmux.frames.batch import Batch
from lbmux.frames.tun import Tun
from lbmux.health.probe import ProbeError
from lbmux.linux import probe_routes
from lbmux.targets.native import Worker, context_row, enter
from lbmux.wire.numbers import UDP_PROTOCOL

DEVICE = "lbmux-probe%d"
CAPACITY = 64
BATCHES_A_TURN = 16
PORTS = 65536
RESET_AT_CLOSE = struct.pack("ii", 1, 0)
"""struct linger: without it each probe's port would stay in TIME_WAIT for a minute, until all are used up."""
NOT_VIP = int(Verdict.NOT_VIP)


def is_wanted(service: Service) -> bool:
    return service.health is not None and service.health.through == "tunnel"


class TunnelProbes:
    """The TUN device opens with the first configuration that needs it; ``send`` gets batches of frames."""

    def __init__(self, local: Iterable[Address], send: Callable[[Batch], Any]) -> None:
        """``local``: the mux's own addresses, from which it probes its backends."""
        self._local, self._send = tuple(local), send
        self._stack = contextlib.AsyncExitStack()
        self._tun: Tun | None = None
        self._batch = Batch(CAPACITY)
        self.tables = ProbeTables(self._local)
        self._worker: Worker | None = None
        self._targets = np.full((2, PORTS), -1, np.int32)
        """Row of the backend under test by protocol (0 TCP, 1 UDP) and source port; -1 without a probe."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self._stack:
            yield

    async def configure(self, config: Config) -> None:
        """Take the backends of ``config`` that are probed through the tunnel. Running probes of others continue.

        Raise SetupError if no TUN device can be made, or no own address fits an outer header.
        """
        services = self.tables.bare(service for service in config.services if is_wanted(service))
        config = config.model_copy(update={"services": services})
        before = self.tables.mux
        if (before is None and not services) or (before is not None and before.config == config):
            return
        if self._tun is None:
            await self._open()
        mux = await self.tables.fill(config)
        if mux is not before:
            worker = Worker(mux.tables)
            # Compile before the first packet, in a thread: the mux forwards packets meanwhile.
            await asyncio.to_thread(self._encapsulate, worker, Batch(1))
            self._targets[:] = -1
            self.tables.mux, self._worker = mux, worker

    def bind(self, key: BackendKey, protocol: str, sock: socket.socket) -> None:
        """Tunnel what ``sock`` sends to the backend ``key``; call it before the socket connects to the VIP.

        Raise ProbeError if the mux has no address of the socket's family, or no TUN device.
        """
        version = 6 if sock.family == socket.AF_INET6 else 4
        own = next((address for address in self._local if address.version == version), None)
        if own is None:
            raise ProbeError(f"the mux has no own IPv{version} address to probe from: name one by --address")
        row = self.tables.mux.rows.get(key) if self.tables.mux is not None else None
        if row is None:
            raise ProbeError("this mux has no tunnel for probes; its log says why")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, probe_routes.MARK)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        sock.bind((str(own), 0))
        self._targets[int(protocol == "udp"), sock.getsockname()[1]] = row

    async def _open(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            tun = stack.enter_context(Tun(DEVICE, CAPACITY))
            stack.push_async_callback(asyncio.to_thread, probe_routes.close_routes)
            await asyncio.to_thread(probe_routes.open_routes, tun.name)
            loop = asyncio.get_running_loop()
            loop.add_reader(tun.fileno(), self._read)
            stack.callback(loop.remove_reader, tun.fileno())
            self._tun = tun
            self._stack.push_async_exit(stack.pop_all())

    def _read(self) -> None:
        batch, tun = self._batch, self._tun
        assert tun is not None
        for _ in range(BATCHES_A_TURN):
            if not tun.receive(batch):
                return
            if self._worker is not None:
                self._encapsulate(self._worker, batch)
                self._send(batch)

    def _encapsulate(self, worker: Worker, batch: Batch) -> None:
        towards(
            worker.address, self._targets, batch.address, batch.length, batch.verdict, batch.interface, batch.flags,
            batch.target, batch.count,
        )  # fmt: skip


@compiled
def towards(context_address, targets, address, length, verdict, interface, flags, target, count):  # type: ignore[no-untyped-def]
    """Encapsulate each packet to the backend of its probe; packets of no probe get the verdict NOT_VIP."""
    context, record = context_at(context_address), context_row(at_address(context_address), 0)
    for index in range(count):
        enter(record, address[index], length[index], flags[index], u32(0))
        start = frame(context)
        packet = parse(context, start, frame_end(context))
        verdict[index], row = NOT_VIP, int64(-1)
        if packet.verdict == PARSED:
            row = int64(targets[int64(packet.protocol == UDP_PROTOCOL), swap16(source_port(packet.ports))])
        if row >= 0:
            backend = backend_row(backends(context), row)
            verdict[index], _ = encapsulate(context, settings_row(settings(context), 0), start, packet, backend)
            interface[index] = backend.interface
        target[index] = row
        address[index], length[index] = record.frame, record.end - record.frame
