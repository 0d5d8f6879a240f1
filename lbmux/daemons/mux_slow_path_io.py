"""The mux's slow path and its sockets: handles punted frames and sends what results.

Frames with a known next hop leave by a packet socket; other packets leave by the kernel's routes.
"""

import asyncio
import contextlib
import ctypes
import logging
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import Address, to_pair
from lbmux.datapath.tables import UP
from lbmux.datapath.verdicts import VERDICTS, Verdict
from lbmux.errors import SetupError
from lbmux.frames.batch import Batch
from lbmux.frames.frame_copy import FrameCopy
from lbmux.frames.socket_filters import NOTHING, attach, ignore_path_mtus
from lbmux.slowpath.forwarder import TableForwarder
from lbmux.slowpath.mux_context import MuxContext, vips_of
from lbmux.slowpath.mux_output import BY_ROUTE, Sent
from lbmux.slowpath.mux_slow_path import PUNTED, MuxSlowPath
from lbmux.slowpath.tunnels import Carriers, Ports
from lbmux.tables.mux_tables import MuxTables
from lbmux.targets.native import Worker
from lbmux.targets.regions import now_ticks
from lbmux.tracing.trace_event import TraceEvent, by_route, note_slow_path
from lbmux.wire.numbers import IP_IN_IP, LOOPBACK
from lbmux.wire.packet import destination_of, version_of

log = logging.getLogger(__name__)

REFRESH_S = 5.0
"""How often learned path MTUs are written to the tables again: a reload removes them."""
REJECTS_A_BATCH = 16
"""Frames without a backend that are answered per batch."""
_PUNTED: NDArray[np.bool_] = np.zeros(2 * VERDICTS, np.bool_)
_PUNTED[list(PUNTED)] = True


class Sender:
    """Sends frames by an interface and packets by the kernel's routes; counts what the kernel refuses."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._names: dict[int, str] = {0: interface}
        self.to_own_host: Callable[[bytes], None] | None = None
        """An edge's agent: gets the frames to the mux's own host."""
        self.unsent = 0
        try:
            self._frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._packets = {
                4: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
                6: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW),
            }
            # While sockets of these protocols are open, the kernel sends no "protocol unreachable" to other muxes.
            self._silence = [
                socket.socket(family, socket.SOCK_RAW, protocol)
                for family in (socket.AF_INET, socket.AF_INET6)
                for protocol in IP_IN_IP.values()
            ]
        except PermissionError as error:
            raise SetupError("raw socket", "not permitted", "needs CAP_NET_RAW: run as root") from error
        for sock in (self._frames, *self._packets.values()):
            sock.setblocking(False)
        for sock in self._silence:
            attach(sock, NOTHING)
            ignore_path_mtus(sock)

    def __enter__(self) -> "Sender":
        return self

    def __exit__(self, *error: object) -> None:
        for sock in (self._frames, *self._packets.values(), *self._silence):
            sock.close()

    def send(self, sent: Iterable[Sent]) -> list[Sent]:
        """Send; returns what the kernel accepted."""
        taken = []
        for one in sent:
            try:
                if one.interface == BY_ROUTE:
                    self._by_route(one.data)
                elif one.interface == LOOPBACK and self.to_own_host is not None:
                    self.to_own_host(one.data)
                else:
                    self._frames.sendto(one.data, (self._name(one.interface), 0))
            except OSError:
                self.unsent += 1
            else:
                taken.append(one)
        return taken

    def _by_route(self, packet: bytes) -> None:
        self._packets[version_of(packet)].sendto(packet, (str(destination_of(packet)), 0))

    def _name(self, index: int) -> str:
        if index not in self._names:
            self._names[index] = socket.if_indextoname(index)
        return self._names[index]


class SlowFrames:
    """The packet loop calls it with every batch; `lbmux show counters` reads its counters."""

    def __init__(self, mux: MuxTables, worker: Worker, sender: Sender) -> None:
        """``worker``: its own, with the packet loop's number: it runs between two batches."""
        self._mux, self._sender = mux, sender
        self._forwarder = TableForwarder(worker, now_ticks)
        self._forwarder.warm_up()
        self._rows: dict[Address, NDArray[np.intp]] = {}
        """The rows of a VIP's backends, of VIPs that were looked up since the configuration."""
        self._carriers = Carriers()
        self._slow = MuxSlowPath(self._forwarder, frozenset(mux.local.values()), self._place(), self._is_up)
        self._forwarder.mtus = self._path_mtu
        self._written: dict[Address, tuple[int, int]] = {}
        """Hosts whose rows hold a path MTU: the link's MTU and the written one, in bytes."""

    def yield_to(self, is_behind: Callable[[], bool]) -> None:
        """Drop what needs much time while ``is_behind()``: other packets wait."""
        self._slow.is_behind = is_behind

    def configure(self) -> None:
        """Follow a configuration that has come into force."""
        self._slow.configure(self._place())
        self.refresh()

    def handle(self, batch: Batch, event: Sequence[TraceEvent] = ()) -> None:
        """Handle the punted frames of a batch, which the data path has left unchanged.

        ``event``: trace events of the first frames, while a client watches; each gets a note of what was done.
        """
        picked = _picked(batch.verdict[: batch.count])
        if len(picked) == 0:
            return
        now = time.monotonic()
        for index in picked.tolist():
            frame = ctypes.string_at(int(batch.address[index]), int(batch.length[index]))
            verdict, target = Verdict(int(batch.verdict[index])), int(batch.target[index])
            if index >= len(event):  # not traced
                self._send(self._slow.handle(verdict, frame, target, now))
                continue
            with note_slow_path(event[index], self._slow.counts) as note:
                sent = self._send(self._slow.handle(verdict, frame, target, now))
                note.sent += map(_frame_copy, sent)
        if self._slow.mtus.changed:
            self._write(self._slow.mtus.changed, now)
            self._slow.mtus.changed.clear()

    def returned(self, frame: bytes) -> None:
        """Handle a frame that the agent of this host returned (second chance)."""
        self._send(self._slow.handle(Verdict.PROTOCOL, frame, -1, time.monotonic()))

    def _send(self, frames: Sequence[Sent]) -> list[Sent]:
        """Send, and charge it to the budget of the packet that caused it."""
        if not frames:
            return []
        begun_s = time.thread_time()
        sent = self._sender.send(frames)
        self._slow.spend(time.thread_time() - begun_s)
        return sent

    def refresh(self) -> None:
        """Write the known path MTUs to the tables, and restore the link's MTU where one has expired."""
        now = time.monotonic()
        self._write(self._written.keys() | self._slow.mtus.known(now).keys(), now)

    def _write(self, hosts: Iterable[Address], now: float) -> None:
        known, mtus = self._slow.mtus.known(now), self._mux.tables.backends["mtu"]
        for host in hosts:
            rows = self._rows_to(host)
            in_table = int(mtus[rows].max(initial=0))
            link_bytes, written = self._written.pop(host, (in_table, in_table))
            if in_table != written:  # the next hop has changed, or there was a reload
                link_bytes = in_table
            mtus[rows] = min(link_bytes, known.get(host, link_bytes))
            if host in known:
                self._written[host] = link_bytes, min(link_bytes, known[host])

    def counters(self) -> dict[str, int]:
        """Counters of the slow path by name."""
        lost = {"unsent": self._sender.unsent + self._forwarder.unsent, "path_mtus": len(self._written)}
        return dict(sorted(self._slow.counts.items())) | lost

    def _place(self) -> MuxContext:
        config = self._mux.config
        assert config is not None  # the tables are filled before the slow path is built
        self._rows = {}
        vips = vips_of((service.vip, service.protocol, service.port) for service in config.services)
        ports = Ports(config.tunnel.gue_port, config.tunnel.geneve_port)
        return MuxContext(config.slowpath, vips, frozenset(config.muxes), self._carriers.of(config), ports)

    def _is_up(self, vip: Address) -> bool:
        if vip not in self._rows:
            self._rows[vip] = _rows_of(vip, self._mux)
        return bool((self._mux.tables.backends["state"][self._rows[vip]] == UP).any())

    def _rows_to(self, host: Address) -> NDArray[np.intp]:
        backends, (high, low) = self._mux.tables.backends, to_pair(host)
        return np.flatnonzero((backends["remote_high"] == high) & (backends["remote_low"] == low))

    def _path_mtu(self, host: Address, link_bytes: int) -> int:
        return self._slow.mtus.of(host, link_bytes, time.monotonic())


def _picked(verdicts: NDArray[Any]) -> NDArray[np.intp]:
    """Indices of the frames to handle; of frames without a backend, which may be a flood, only a few."""
    picked = np.flatnonzero(_PUNTED[verdicts])
    without = np.flatnonzero(verdicts == Verdict.NO_BACKEND)
    if len(without) > REJECTS_A_BATCH:
        picked = np.setdiff1d(picked, without[REJECTS_A_BATCH:], assume_unique=True)
    return picked


def _frame_copy(sent: Sent) -> FrameCopy:
    if sent.interface == BY_ROUTE:
        return by_route(sent.data)
    return FrameCopy(sent.data, len(sent.data), sent.interface, time.time_ns())


def _rows_of(vip: Address, mux: MuxTables) -> NDArray[Any]:
    """Return the rows of a VIP's backends."""
    services = [service for service in mux.config.services if service.vip == vip] if mux.config is not None else []
    rows = [mux.rows[service.name, backend.name] for service in services for backend in service.backends]
    return np.array(rows, np.intp)


@contextlib.contextmanager
def refreshing(slow: SlowFrames) -> Iterator[None]:
    """Refresh the path MTUs every REFRESH_S on the running event loop."""
    loop, timers = asyncio.get_running_loop(), list[asyncio.TimerHandle]()

    def again() -> None:
        slow.refresh()
        timers[:] = [loop.call_later(REFRESH_S, again)]

    again()
    try:
        yield
    finally:
        timers[0].cancel()
