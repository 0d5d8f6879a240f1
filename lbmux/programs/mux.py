"""The mux as a process: frames from the ring through the data path, everything else beside it on one event loop."""

import asyncio
import contextlib
import ctypes
import logging
import time
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import numpy as np

from lbmux.addresses import Address
from lbmux.control.config_file import load
from lbmux.control.control_socket import ControlServer, default_path
from lbmux.control.mux_tables import MuxTables, sizes_for
from lbmux.control.neighbours import NextHop, NextHops, first_address
from lbmux.control.offloads import without_super_frames
from lbmux.datapath.verdicts import Verdict
from lbmux.frames.batch import Batch
from lbmux.frames.packet_ring import PacketRing
from lbmux.programs.daemon import notify, stop_event
from lbmux.programs.reload import Reloader
from lbmux.programs.waiting import Waiting
from lbmux.targets.native import Worker
from lbmux.targets.regions import Tables, now_ticks

log = logging.getLogger(__name__)

BATCHES_A_TURN = 16
"""How many batches are read before the event loop gets its turn: it then waits for a millisecond at most."""


@dataclass(frozen=True)
class Options:
    """What is local to one mux; the configuration file is shared by all."""

    config: Path
    interface: str
    address: IPv4Address | None = None
    control: Path | None = None
    driver: str = "auto"


class PacketLoop:
    """Reads the ring whenever it has frames, and sends on what the data path says."""

    def __init__(self, ring: PacketRing, worker: Worker) -> None:
        self.ring = ring
        self.waiting = Waiting()
        self._worker = worker
        self._batch = Batch()
        self._lengths = np.zeros_like(self._batch.length)
        self.batches = 0

    def warm_up(self) -> None:
        """Compile, or load from the cache, everything that a packet will need."""
        batch = self.waiting.batch
        batch.count = 0
        self._worker.forward(batch, now_ticks())
        self.ring.send(batch)
        self.ring.release(batch)
        self.turn()

    def read(self) -> None:
        """Take what the ring has, a bounded number of batches."""
        for _ in range(BATCHES_A_TURN):
            if not self.turn():
                return

    def turn(self) -> int:
        """One batch: received, forwarded, sent, given back; how many frames it had."""
        ring, batch = self.ring, self._batch
        count = ring.receive(batch)
        if count:
            self.batches += 1
            self._worker.forward(batch, now_ticks())
            ring.send(batch)
            self._keep_unresolved(batch, time.monotonic())
            ring.release(batch)
        return count

    def retry(self) -> None:
        """Another try for the frames that waited for a MAC address; those whose own is still unknown wait on."""
        if len(self.waiting):
            since, batch = self.waiting.take()
            self._worker.forward(batch, now_ticks())
            self.ring.send(batch)
            self._keep_unresolved(batch, since)

    def _keep_unresolved(self, batch: Batch, since: float) -> None:
        for index in np.flatnonzero(batch.verdict[: batch.count] == Verdict.NO_NEIGHBOUR).tolist():
            frame = ctypes.string_at(int(batch.address[index]), int(batch.length[index]))
            self.waiting.add(frame, int(batch.flags[index]), since)


async def serve(options: Options) -> None:
    """Run until SIGTERM; what was read by then is still sent."""
    config = await asyncio.to_thread(load, options.config)
    local: IPv4Address = options.address or await asyncio.to_thread(first_address, options.interface)
    tables = Tables.allocate(sizes_for(config))
    mux = MuxTables(tables, local)
    mux.commit(mux.plan(config))
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(without_super_frames(options.interface))
        ring = stack.enter_context(PacketRing(options.interface))
        loop = PacketLoop(ring, Worker(tables))
        loop.warm_up()

        def moved(destination: Address, hop: NextHop | None) -> None:
            mux.set_next_hop(destination, hop)
            log.info("next hop of %s: %s", destination, hop or "not known")
            if hop is not None:
                loop.retry()

        hops = await stack.enter_async_context(NextHops(moved))
        await hops.watch(mux.destinations())
        reloader = Reloader(options.config, mux, lambda: hops.watch(mux.destinations()))
        handlers: dict[str, Any] = {"reload": reloader.reload}
        await stack.enter_async_context(ControlServer(options.control or default_path("mux"), handlers))
        stop = stop_event(on_reload=reloader.soon)
        asyncio.get_running_loop().add_reader(ring.fileno(), loop.read)
        stack.callback(asyncio.get_running_loop().remove_reader, ring.fileno())
        log.info("mux %s on %s: %d services", local, options.interface, len(config.services))
        notify("READY=1")
        await stop.wait()
        notify("STOPPING=1")
        while loop.turn():
            pass
    log.info("stopped; goodbye")
