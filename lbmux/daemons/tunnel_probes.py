"""Probes through the tunnel: connections from the mux to a VIP, each tunnelled to the backend under test.

A probe's socket is marked, so that its packets leave by a TUN device (lbmux.linux.probe_routes).  Their source port
names the backend; they are encapsulated like any packet of the service.  The backend answers as it does any client:
directly, from the VIP.
"""

import asyncio
import contextlib
import dataclasses
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import numpy as np

from lbmux.addresses import Address
from lbmux.codegen.compiled import compiled
from lbmux.config.models import BackendKey, Config, Service
from lbmux.datapath.context import backends, context_at, frame, frame_end, settings
from lbmux.datapath.encapsulate import encapsulate
from lbmux.datapath.memory import at_address, int64, swap16, u32
from lbmux.datapath.parse import PARSED, parse, source_port
from lbmux.datapath.tables import backend_row, settings_row
from lbmux.datapath.verdicts import Verdict
from lbmux.errors import TableError
from lbmux.frames.batch import Batch
from lbmux.frames.tun import Tun
from lbmux.health.probe import ProbeError
from lbmux.linux import probe_routes
from lbmux.linux.next_hops import NextHop
from lbmux.tables.mux_tables import MuxTables, sizes_for
from lbmux.targets.native import Worker, context_row, enter
from lbmux.targets.regions import Tables
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
        self._mux: MuxTables | None = None
        self._worker: Worker | None = None
        self._hops: dict[Address, NextHop | None] = {}
        self._targets = np.full((2, PORTS), -1, np.int32)
        """Row of the backend under test by protocol (0 TCP, 1 UDP) and source port; -1 without a probe."""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self._stack:
            yield

    def destinations(self) -> set[Address]:
        """The hosts of all backends that are probed through the tunnel, up or down."""
        return self._mux.destinations() if self._mux is not None else set()

    def set_next_hop(self, destination: Address, hop: NextHop | None) -> None:
        self._hops[destination] = hop
        if self._mux is not None:
            self._mux.set_next_hop(destination, hop)

    async def configure(self, config: Config) -> None:
        """Take the backends of ``config`` that are probed through the tunnel. Running probes of others continue.

        SetupError where no TUN device can be made, or no own address fits an outer header.
        """
        services = tuple(bare(service) for service in config.services if is_wanted(service))
        config = config.model_copy(update={"services": services})
        if (self._mux is None and not services) or (self._mux is not None and self._mux.config == config):
            return
        if self._tun is None:
            await self._open()
        try:
            await self._commit(self._mux or self._new(config), config)
        except TableError:
            await self._commit(self._new(config), config)

    def _new(self, config: Config) -> MuxTables:
        """Tables with rows of backends only: no flows, no slots."""
        mux = MuxTables(Tables.allocate(dataclasses.replace(sizes_for(config), buckets=1, slots=1)), *self._local)
        for destination, hop in self._hops.items():
            mux.set_next_hop(destination, hop)
        return mux

    async def _commit(self, mux: MuxTables, config: Config) -> None:
        mux.commit(await asyncio.to_thread(mux.plan, config))
        if mux is not self._mux:
            worker = Worker(mux.tables)
            # Compile before the first packet, in a thread: the mux has packets to forward meanwhile.
            await asyncio.to_thread(self._encapsulate, worker, Batch(1))
            self._targets[:] = -1
            self._mux, self._worker = mux, worker

    def bind(self, key: BackendKey, protocol: str, sock: socket.socket) -> None:
        """Tunnel what ``sock`` sends to the backend ``key``; call it before the socket connects to the VIP.

        ProbeError where the mux has no address of the socket's family, or no TUN device.
        """
        version = 6 if sock.family == socket.AF_INET6 else 4
        own = next((address for address in self._local if address.version == version), None)
        if own is None:
            raise ProbeError(f"the mux has no own IPv{version} address to probe from: name one by --address")
        row = self._mux.rows.get(key) if self._mux is not None else None
        if row is None:
            raise ProbeError("there is no tunnel for probes: the mux's log says why")
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


def bare(service: Service) -> Service:
    """A service with only its backends' rows: without weights no Maglev table is built."""
    backends = tuple(backend.model_copy(update={"weight": 0}) for backend in service.backends)
    return service.model_copy(
        update={"backends": backends, "allow": (), "deny": (), "quic": None, "port_to": None, "health": None}
    )


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
